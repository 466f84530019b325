"""The published log: a folder laid out as C2SP tlog-tiles says, which any tlog client can read.

    checkpoint                     the newest signed head, replaced as a whole
    tile/<L>/<N>                   256 hashes of tile level L, 32 bytes each (N as x001/x234/067)
    tile/<L>/<N>.p/<W>             the unfinished tile at the right edge, W hashes wide
    tile/entries/<N>[.p/<W>]       the entries below tile/0/<N>:  u16 big-endian length │ entry, and so on

Tiles are durable before the checkpoint that needs them; so whatever a checkpoint covers and is not here
was taken away. A wider unfinished tile contains the narrower ones of the same number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final, NamedTuple

from openk_daemon.audit.edge import WIDTH, Edge, Tile, tile_widths
from openk_daemon.audit.merkle import HASH, node_hash, perfect_root, split
from openk_daemon.audit.seam import AuditDamaged

CHECKPOINT: Final = "checkpoint"
LONGEST_ENTRY: Final = 0xFFFF
_LENGTH: Final = Struct(">H")
_NEW: Final = ".new"


class File(NamedTuple):
    path: str
    content: bytes


def number_path(number: int) -> str:
    """67 → 067, 1234067 → x001/x234/067."""
    path = f"{number % 1000:03}"
    while number := number // 1000:
        path = f"x{number % 1000:03}/{path}"
    return path


def tile_path(level: int | str, number: int, width: int) -> str:
    """`level` is "entries" for the entries themselves."""
    path = f"tile/{level}/{number_path(number)}"
    return path if width == WIDTH else f"{path}.p/{width}"


def tile_file(tile: Tile) -> File:
    return File(tile_path(tile.level, tile.number, len(tile.hashes)), b"".join(tile.hashes))


def bundle_file(number: int, entries: Sequence[bytes]) -> File:
    content = b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)
    return File(tile_path("entries", number, len(entries)), content)


def split_bundle(content: bytes) -> list[bytes]:
    """Raises ValueError when lengths and bytes do not fit."""
    entries: list[bytes] = []
    at = 0
    while at < len(content):
        if at + 2 > len(content):
            raise ValueError("a bundle ends inside a length")
        (length,) = _LENGTH.unpack_from(content, at)
        at += 2
        if at + length > len(content):
            raise ValueError("a bundle ends inside an entry")
        entries.append(content[at : at + length])
        at += length
    return entries


class Tiles:
    """The folder. Its methods block for the disk: writing belongs on a thread, reading is a few small files."""

    def __init__(self, folder: str) -> None:
        """Makes the folder when it is not there."""
        self.folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def read_checkpoint(self) -> str | None:
        try:
            with open(os.path.join(self.folder, CHECKPOINT), encoding="utf-8") as file:
                return file.read(8192)
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise AuditDamaged("the file `checkpoint` of the audit log is not text") from None

    def write(self, files: Iterable[File]) -> None:
        """Write files, each as a whole, and make them and their folders durable. Raises OSError."""
        folders: set[str] = set()
        written: list[tuple[str, int]] = []
        try:
            for file in files:
                path = os.path.join(self.folder, file.path)
                parent = os.path.dirname(path)
                if parent not in folders:
                    folders.update(self._make_folders(parent))
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(f"{path}{_NEW}", flags, 0o600)
                written.append((path, descriptor))
                _write_whole(descriptor, file.content)
            for path, descriptor in written:
                os.fsync(descriptor)
                os.rename(f"{path}{_NEW}", path)
        except OSError:
            for path, _ in written:
                with suppress(OSError):  # renamed already, or the disk takes not even this
                    os.unlink(f"{path}{_NEW}")
            raise
        finally:
            for _, descriptor in written:
                os.close(descriptor)
        for folder in sorted(folders, reverse=True):
            sync_folder(folder)

    def _make_folders(self, parent: str) -> list[str]:
        """The folders whose content changes: `parent`, and those above it that had to get a new one."""
        changed = [parent]
        missing = parent
        while not os.path.isdir(missing):
            missing = os.path.dirname(missing)
            changed.append(missing)
        os.makedirs(parent, mode=0o700, exist_ok=True)
        return changed

    def remove_partial(self, level: int | str, number: int, width: int) -> None:
        """Forget an unfinished tile which a wider one has replaced; its folder too when it is empty."""
        path = os.path.join(self.folder, tile_path(level, number, width))
        with suppress(OSError):  # not there, or a disk that is read-only: it does no harm
            os.unlink(path)
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))

    def read_tile(self, level: int, number: int, width: int) -> list[bytes]:
        """The first `width` hashes of a tile. Raises AuditDamaged, naming it, when they are not there."""
        content = self._read(level, number, width, lambda content: len(content) >= width * HASH)
        return [content[at : at + HASH] for at in range(0, width * HASH, HASH)]

    def read_bundle(self, number: int, width: int) -> list[bytes]:
        """The first `width` entries of a bundle. Raises AuditDamaged, naming it, when they are not there."""
        content = self._read("entries", number, width, bool)
        try:
            entries = split_bundle(content)
        except ValueError as error:
            raise AuditDamaged(f"{tile_path('entries', number, width)} is damaged: {error}") from None
        if len(entries) < width:
            raise AuditDamaged(f"{tile_path('entries', number, width)} is cut short")
        return entries[:width]

    def _read(self, level: int | str, number: int, width: int, complete: Callable[[bytes], bool]) -> bytes:
        named = tile_path(level, number, width)
        for path in self._candidates(level, number, width):
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            if not complete(content):
                raise AuditDamaged(f"{named} of the audit log is cut short")
            return content
        raise AuditDamaged(f"{named} of the audit log is missing")

    def _candidates(self, level: int | str, number: int, width: int) -> list[str]:
        """Where the first `width` hashes of a tile may be: its own file, the full tile, a wider one."""
        exact = os.path.join(self.folder, tile_path(level, number, width))
        if width == WIDTH:
            return [exact]
        candidates = [exact, os.path.join(self.folder, tile_path(level, number, WIDTH))]
        with suppress(FileNotFoundError, NotADirectoryError):
            folder = os.path.dirname(exact)
            here = set(os.listdir(folder))
            candidates += [os.path.join(folder, str(more)) for more in range(width + 1, WIDTH) if str(more) in here]
        return candidates

    def load_edge(self, size: int) -> Edge:
        """The right edge of the tree of `size`, unverified."""
        return Edge(
            [
                self.read_tile(level, full, width) if width else []
                for level, (full, width) in enumerate(tile_widths(size))
            ]
        )

    def subtree(self, size: int) -> Callable[[int, int], bytes]:
        """Hashes of ranges of the tree of `size`, for proofs (merkle.Subtree)."""

        def hash_range(begin: int, end: int) -> bytes:
            length = end - begin
            if length & (length - 1):
                middle = begin + split(length)
                return node_hash(hash_range(begin, middle), hash_range(middle, end))
            level, bits = divmod(length.bit_length() - 1, 8)
            number, at = divmod(begin >> (8 * level), WIDTH)
            width = min(WIDTH, (size >> (8 * level)) - number * WIDTH)
            return perfect_root(self.read_tile(level, number, width)[at : at + (1 << bits)])

        return hash_range


def _write_whole(descriptor: int, content: bytes) -> None:
    """Write and let the disk begin at once: then the first fsync of several files finds most of the work done."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """What was made, renamed or removed in it is durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
