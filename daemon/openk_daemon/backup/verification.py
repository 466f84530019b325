"""Whether a backup could be restored: is it whole, and is its log the one under the signed head that lies beside it?

backup.json ─▶ hashes of both files ─▶ every page of the store, and their order ─▶ the log's entries, hashed anew
                                                               └─▶ the root at the head's size is the head's
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from openk_daemon.audit.checkpoint import Checkpoint, CheckpointInvalid, read_unverified
from openk_daemon.audit.growing import Growing
from openk_daemon.audit.tiles import File
from openk_daemon.backup import manifest
from openk_daemon.backup.manifest import CHECKPOINT, Manifest
from openk_daemon.backup.seam import BackupDamaged, Copy, Original
from openk_daemon.store.seam import StoreError

SLICE: Final = 128
"""Entries hashed in one go, some 250 microseconds: whoever holds the interpreter lock for longer is felt by clients."""

Going = Callable[[], None]
"""Called between two slices: may rest, and raise to end the work."""
Keep = Callable[[list[File]], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What is in a backup, `text`: the signed head as it lies there."""

    manifest: Manifest
    text: str
    checkpoint: Checkpoint


def nothing() -> None:
    """Go on at once."""


def verify(folder: Path, original: Original, going_on: Going = nothing, keep: Keep | None = None) -> Verified:
    """The whole backup in `folder`. `keep` is handed the files of the published log as they come out of the entries.
    Raises BackupDamaged: it is not one that could be restored."""
    found = manifest.read(folder)
    for name, expected in found.sha256.items():
        try:
            told, size = manifest.hash_file(folder / name, going_on)
        except OSError as error:
            raise BackupDamaged(f"{name} cannot be read: {error.strerror}") from error
        if told != expected or (name == found.store and size != found.bytes):
            raise BackupDamaged(f"{name} is not the file that {manifest.FILE} tells of: it was changed or cut short")
    text, checkpoint = read_head(manifest.read_small(folder / CHECKPOINT))
    entries = examine(folder, original, checkpoint, going_on, keep)
    if (entries, checkpoint.size) != (found.entries, found.signed):
        raise BackupDamaged(
            f"the store has {entries} entries of which {checkpoint.size} are signed, and {manifest.FILE} tells of "
            f"{found.entries} and {found.signed}"
        )
    return Verified(found, text, checkpoint)


def read_head(content: bytes) -> tuple[str, Checkpoint]:
    """Raises BackupDamaged."""
    try:
        text = content.decode()
        return text, read_unverified(text)
    except (UnicodeDecodeError, CheckpointInvalid) as error:
        raise BackupDamaged(f"the signed head cannot be read: {error}") from error


def examine(
    folder: Path,
    original: Original,
    checkpoint: Checkpoint,
    going_on: Going,
    keep: Keep | None = None,
) -> int:
    """The copy in `folder` against the head that is said to be of its log: the number of its entries. Raises
    BackupDamaged."""
    try:
        with original.open(str(folder)) as copy:
            copy.check(going_on)
            return _grow(copy, checkpoint, going_on, keep)
    except StoreError as error:
        raise BackupDamaged(f"the copy of the store is damaged: {error}") from error


def _grow(copy: Copy, checkpoint: Checkpoint, going_on: Going, keep: Keep | None) -> int:
    growing = Growing()
    signed = entries = 0
    for group in _slices(copy):
        part = group[: max(0, checkpoint.size - signed)]
        files = growing.take(part)
        if keep is not None and files:
            keep(files)
        signed += len(part)
        entries += len(group)
        going_on()
    if signed < checkpoint.size:
        raise BackupDamaged(
            f"{checkpoint.size} entries of the log were signed, and {entries} are here: entry {entries} is the first "
            "that is missing"
        )
    if growing.edge.root() != checkpoint.root:
        raise BackupDamaged("an entry of the log was changed: the signed head does not fit")
    if keep is not None:
        keep(growing.unfinished()[0])
    return entries


def _slices(copy: Copy) -> Iterator[Sequence[bytes]]:
    """Entries in runs of SLICE, however they were committed."""
    waiting: list[bytes] = []
    for group in copy.groups():
        waiting += group
        while len(waiting) >= SLICE:
            yield waiting[:SLICE]
            waiting = waiting[SLICE:]
    if waiting:
        yield waiting


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()
