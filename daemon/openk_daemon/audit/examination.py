"""Whether the log in the store and the published tiles are what the audit key signed; names what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from openk_daemon.audit.checkpoint import Checkpoint
from openk_daemon.audit.edge import WIDTH, Edge, tile_widths
from openk_daemon.audit.merkle import leaf_hash, perfect_root
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.audit.tiles import Tiles, tile_path
from openk_daemon.store.seam import StoreError
from openk_hsm.pending import Pending


class Log(Protocol):
    """The part of a LocalStore that is examined."""

    def entries(self, first: int, limit: int = 256) -> Pending[Sequence[bytes]]: ...

    def log_size(self) -> int: ...


def read_entries(log: Log, first: int, count: int) -> Sequence[bytes]:
    """Exactly `count` entries. Raises AuditDamaged naming the first that is not there."""
    try:
        entries = log.entries(first, count).result()
    except StoreError as error:
        raise AuditDamaged(f"the log cannot be read from entry {first} on: {error}") from error
    if len(entries) < count:
        raise AuditDamaged(f"entry {first + len(entries)} of the log is missing")
    return entries


class Examination:
    """Of the tree under one checkpoint. Every step raises AuditDamaged with the place in its text."""

    def __init__(self, tiles: Tiles, log: Log, checkpoint: Checkpoint) -> None:
        """Compares sizes, and the root of the tiles' right edge with the signed one."""
        self._tiles = tiles
        self._log = log
        self._size = checkpoint.size
        self._cache: dict[int, tuple[int, list[bytes]]] = {}
        if log.log_size() < checkpoint.size:
            raise AuditDamaged(
                f"{checkpoint.size} entries of the log were signed and {log.log_size()} are here: "
                f"entry {log.log_size()} is the first that is missing"
            )
        self.edge: Edge = tiles.load_edge(checkpoint.size)
        if self.edge.root() != checkpoint.root:
            raise AuditDamaged(self._find_at_edge())

    def _find_at_edge(self) -> str:
        """The right edge does not give the signed root: which of its tiles is at odds with what is below it?"""
        for level, (full, width) in enumerate(tile_widths(self._size)):
            for at in range(width):
                number = full * WIDTH + at
                place = f"hash {at} of {tile_path(level, full, width)}"
                if level == 0:
                    entry = read_entries(self._log, number, 1)[0]
                    if leaf_hash(entry) != self.edge.rows[0][at]:
                        return f"entry {number} of the log, or {place}, was changed"
                elif perfect_root(self._tiles.read_tile(level - 1, number, WIDTH)) != self.edge.rows[level][at]:
                    return f"{tile_path(level - 1, number, WIDTH)}, or {place}, was changed"
        return "the tiles and entries of the log are in harmony, but not with the signed checkpoint"

    def entries_from(self, first: int, end: int | None = None) -> Iterator[int]:
        """Examine entries, their published copies and the tiles above them, bundle by bundle, from that of `first`
        until `end` (or the end of the tree); yields the index that was reached, so that others get their turn."""
        until = self._size if end is None else min(end, self._size)
        for number in range(first // WIDTH, (until + WIDTH - 1) // WIDTH):
            begin = number * WIDTH
            hashes = self._tile(0, number)
            entries = read_entries(self._log, begin, len(hashes))
            for index, (entry, expected) in enumerate(zip(entries, hashes, strict=True), begin):
                if leaf_hash(entry) != expected:
                    raise AuditDamaged(f"entry {index} of the log was changed")
            for index, (entry, copy) in enumerate(
                zip(entries, self._tiles.read_bundle(number, len(hashes)), strict=True), begin
            ):
                if entry != copy:
                    raise AuditDamaged(f"{tile_path('entries', number, len(hashes))}: entry {index} was changed")
            yield begin + len(hashes)

    def _tile(self, level: int, number: int) -> list[bytes]:
        """A tile that is proved from above: the signed root proves the edge, the edge the tiles below it."""
        cached = self._cache.get(level)
        if cached is not None and cached[0] == number:
            return cached[1]
        if (number + 1) * WIDTH > self._size >> (8 * level):
            return self.edge.rows[level]
        hashes = self._tiles.read_tile(level, number, WIDTH)
        above, at = divmod(number, WIDTH)
        if perfect_root(hashes) != self._tile(level + 1, above)[at]:
            raise AuditDamaged(f"{tile_path(level, number, WIDTH)} was changed")
        self._cache[level] = (number, hashes)
        return hashes
