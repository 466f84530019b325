"""The tree as it grows by entries, and the files that this makes: those that are full, and the right edge's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from openk_daemon.audit.edge import WIDTH, Edge
from openk_daemon.audit.tiles import File, bundle_file, tile_file

Place = tuple[int | str, int, int]
"""Level, number, width of an unfinished tile or bundle."""


class Growing:
    """`edge` and `bundle`: the unfinished tiles, and the entries below that of level 0."""

    def __init__(self, edge: Edge | None = None, bundle: Sequence[bytes] = ()) -> None:
        """Go on from `edge`, below which `bundle` lies."""
        self.edge = edge if edge is not None else Edge()
        self.bundle = list(bundle)

    def take(self, entries: Sequence[bytes]) -> list[File]:
        """Add entries; the tiles and bundles which that has filled."""
        files: list[File] = []
        for entry in entries:
            self.bundle.append(entry)
            filled = self.edge.append(sha256(b"\x00" + entry).digest())
            if filled:
                files.append(bundle_file(filled[0].number, self.bundle))
                files += [tile_file(tile) for tile in filled]
                self.bundle = []
        return files

    def unfinished(self) -> tuple[list[File], list[Place]]:
        """The files of the right edge that a tree of this size has, and which they are."""
        tiles = self.edge.partial_tiles()
        files = [tile_file(tile) for tile in tiles]
        places: list[Place] = [(tile.level, tile.number, len(tile.hashes)) for tile in tiles]
        if self.bundle:
            number = self.edge.size // WIDTH
            files.append(bundle_file(number, self.bundle))
            places.append(("entries", number, len(self.bundle)))
        return files, places
