"""Makes one backup, on a thread of its own:

    folder fit? ─▶ its lock ─▶ remains cleared ─▶ room? ─▶ store copied ─▶ head beside it ─▶ verified ─▶ backup.json
       ─▶ durable under its name ─▶ the oldest pruned

The head was signed before the copying began, so it is never ahead of the copy. What goes wrong on the way leaves
nothing that counts as a backup, and the older ones where they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Final

from openk_daemon.backup import manifest, verification
from openk_daemon.backup.manifest import CHECKPOINT, Manifest
from openk_daemon.backup.seam import Backup, BackupDamaged, BackupFailed, Original, Reason
from openk_daemon.backup.shelf import Shelf, remove, write_file
from openk_daemon.store.folder import FolderLock, FolderRefused, check_folder
from openk_daemon.store.seam import Damaged, Foreign, Full, StoreError

NAME: Final = "backup folder"
REST: Final = 0.002
"""Seconds between two pieces of 1 MiB, or two slices of entries: the disk and the interpreter are the clients'."""
GATHERED: Final = 64 << 20
"""Bytes of commits that may gather while the store is copied to a slow disk, although their own disk gets full."""
_MARGIN: Final = 1 << 20
"""Bytes besides the copy of the store."""


class Course:
    """How far it is; read and told to stop from another thread."""

    def __init__(self) -> None:
        self.step = "waiting"
        """waiting, copying or verifying."""
        self.share = 0.0
        """Of the copying."""
        self.stopping = False
        self.moved = time.monotonic()
        """When it last got further."""

    def go_on(self) -> None:
        """Between two pieces. Raises BackupFailed when openkd stops."""
        self.moved = time.monotonic()
        if self.stopping:
            raise BackupFailed(Reason.STOPPED, "openkd stops")
        time.sleep(REST)


@dataclass(frozen=True, slots=True)
class Order:
    """`head`: the newest signed head. `keep`: how many backups are kept, this one among them. `reserve`: bytes that
    stay free where the state is. `clock`: Unix seconds."""

    head: str
    keep: int
    reserve: int
    version: str
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Made:
    """`gone`: the names of those that were pruned; `trouble`: why others were not. `listed`: those that are there."""

    backup: Backup
    seconds: float
    gone: Sequence[str]
    trouble: OSError | None
    listed: Sequence[Backup]


class Maker:
    def __init__(self, folder: Path, state: Path, original: Original) -> None:
        """`original`: the store in the folder `state`."""
        self.shelf = Shelf(folder)
        self._state = state
        self._original = original

    def make(self, order: Order, course: Course) -> Made:
        """Raises BackupFailed, and nothing else but for mistakes in openk."""
        began = time.monotonic()
        folder = self.shelf.folder
        try:
            check_folder(str(folder), NAME)
            lock = FolderLock(str(folder), NAME)
            try:
                self.shelf.clear()
                partial = self.shelf.begin()
                try:
                    backup = self._fill(partial, order, course)
                except BaseException:
                    with suppress(OSError):  # the next one clears it
                        remove(partial)
                    raise
                gone, trouble = self._prune(order.keep, backup.name)
                return Made(backup, time.monotonic() - began, gone, trouble, self.shelf.list())
            finally:
                lock.release()
        except (StoreError, OSError, BackupDamaged) as error:
            raise _judge(error) from error

    def _fill(self, partial: Path, order: Order, course: Course) -> Backup:
        reserve = order.reserve if self.same_disk() else 0
        self._look_for_room(self._original.bytes() + _MARGIN, reserve)
        course.step = "copying"

        def piece(done: int, whole: int) -> None:
            course.share = done / max(1, whole)
            self._look_for_room(_MARGIN, reserve)
            self._look_at_state(order.reserve)
            course.go_on()

        made = self._another_second(order, course)
        store = self._original.copy(str(partial), piece)
        course.step = "verifying"
        head = order.head.encode()
        write_file(partial / CHECKPOINT, head)
        _, checkpoint = verification.read_head(head)
        told, size = manifest.hash_file(partial / store, course.go_on)
        entries = verification.examine(partial, self._original, checkpoint, course.go_on)
        hashes = {store: told, CHECKPOINT: verification.hash_of(head)}
        found = Manifest(
            format=manifest.FORMAT, openk=order.version, made=made, entries=entries, signed=checkpoint.size,
            store=store, bytes=size, sha256=hashes,
        )  # fmt: skip
        write_file(partial / manifest.FILE, manifest.encode(found))
        name = manifest.name_of(made, entries)
        self.shelf.finish(partial, name)
        return manifest.summary(name, found)

    def _another_second(self, order: Order, course: Course) -> int:
        """Now; where a backup of this very second is there, the next one, for that is their name."""
        taken = {backup.made for backup in self.shelf.list()}
        while (made := int(order.clock())) in taken:
            course.go_on()
        return made

    def _prune(self, keep: int, newest: str) -> tuple[Sequence[str], OSError | None]:
        """What cannot be removed takes nothing from the backup that was made."""
        try:
            return self.shelf.prune(keep, newest), None
        except OSError as error:
            return (), error

    def same_disk(self) -> bool:
        """Whether backups lie on the disk of the state: they take its room, and do not survive its loss. Raises
        OSError."""
        return os.stat(self.shelf.folder).st_dev == os.stat(self._state).st_dev

    def _look_at_state(self, reserve: int) -> None:
        """What is committed during the copying takes room where the state is until it ends. Better no backup than no
        service."""
        if self._original.gathered() > GATHERED and _free(self._state) < 2 * reserve:
            text = "the disk of the state gets full with what is committed meanwhile: the folder's disk is too slow"
            raise BackupFailed(Reason.SPACE, text)

    def _look_for_room(self, needed: int, reserve: int) -> None:
        free = _free(self.shelf.folder)
        if free < needed + reserve:
            held = f", and audit.reserve_bytes ({reserve}) stay free on the disk of the state" if reserve else ""
            raise BackupFailed(Reason.SPACE, f"{free} bytes are free, {needed} are needed{held}")


def _free(folder: Path) -> int:
    """Bytes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _judge(error: StoreError | OSError | BackupDamaged) -> BackupFailed:
    """What it means for an operator. Paths and details are the cause's, for the log."""
    if isinstance(error, FolderRefused):
        return BackupFailed(Reason.FOLDER, "the folder is missing, cannot be written, or others can write it")
    if isinstance(error, Foreign):
        return BackupFailed(Reason.BUSY, "another process makes a backup there")
    if isinstance(error, Full) or (isinstance(error, OSError) and error.errno in {ENOSPC, EDQUOT}):
        return BackupFailed(Reason.SPACE, "the disk is full, or over quota")
    if isinstance(error, BackupDamaged | Damaged):
        return BackupFailed(Reason.DAMAGED, "what was copied is not what the log's signed head says: see the log")
    return BackupFailed(Reason.DISK, "the disk failed: see the log")
