"""The right edge of the tiled tree: what must be in memory for a log to grow and to know its root. Pure.

A tile is 256 hashes of one level; the hash of a full tile is one hash of the next tile level above.

    tile level 1                     [ h0  h1  h2 ]                  3 hashes: 3 full tiles below
    tile level 0    [256 hashes] [256 hashes] [256 hashes] [ 17 hashes ]
    entries          0 … 255      256 … 511    512 … 767    768 … 784        size 785
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from openk_daemon.audit.merkle import fold, perfect_root

WIDTH: Final = 256


class Tile(NamedTuple):
    """`level` counts tiles, not tree levels; `hashes` is 32 bytes for each of its up to 256 nodes."""

    level: int
    number: int
    hashes: tuple[bytes, ...]


class Edge:
    """`rows[level]` holds the hashes of that level's unfinished tile, fewer than 256."""

    def __init__(self, rows: list[list[bytes]] | None = None) -> None:
        self.rows: list[list[bytes]] = rows if rows is not None else []
        self.size = sum(len(row) << (8 * level) for level, row in enumerate(self.rows))

    def append(self, leaf: bytes) -> Sequence[Tile]:
        """Add a leaf hash; the tiles which that has filled, the lowest first."""
        if self.rows and len(self.rows[0]) < WIDTH - 1:  # 255 times of 256
            self.rows[0].append(leaf)
            self.size += 1
            return ()
        filled: list[Tile] = []
        self.size += 1
        hash_ = leaf
        for level in range(len(self.rows) + 1):
            if level == len(self.rows):
                self.rows.append([])
            row = self.rows[level]
            row.append(hash_)
            if len(row) < WIDTH:
                break
            filled.append(Tile(level, (self.size >> (8 * (level + 1))) - 1, tuple(row)))
            hash_ = perfect_root(row)
            row.clear()
        return filled

    def root(self) -> bytes:
        """The RFC 6962 root over all leaves so far."""
        perfect: list[bytes] = []
        for row in reversed(self.rows):
            at = 0
            for bit in range(7, -1, -1):
                if len(row) >> bit & 1:
                    perfect.append(perfect_root(row[at : at + (1 << bit)]))
                    at += 1 << bit
        return fold(perfect)

    def partial_tiles(self) -> list[Tile]:
        """The unfinished tiles that a tree of this size has."""
        return [Tile(level, self.size >> (8 * (level + 1)), tuple(row)) for level, row in enumerate(self.rows) if row]


def tile_widths(size: int) -> list[tuple[int, int]]:
    """For each tile level of a tree of `size`: how many full tiles, and how wide the unfinished one is (or 0)."""
    widths: list[tuple[int, int]] = []
    while size:
        widths.append(divmod(size, WIDTH))
        size //= WIDTH
    return widths
