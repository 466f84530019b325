"""Puts a backup back, offline: no daemon may run on the state, and nothing that is there is lost.

    verified, and the published log made anew from its entries ─▶ all of it in STATE/.restoring-…, durable
       ─▶ with `replace`: what was there moves to STATE/replaced-TIME ─▶ audit/, then store.db, take their places

Where one is interrupted, `.restoring-…` stays, and openkd refuses to start until it was done again.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_daemon.audit.tiles import CHECKPOINT as HEAD
from openk_daemon.audit.tiles import File, Tiles, sync_folder
from openk_daemon.backup import manifest
from openk_daemon.backup.seam import BackupDamaged, Original
from openk_daemon.backup.shelf import remove
from openk_daemon.backup.verification import Verified, verify
from openk_daemon.store.folder import LOCK, RESTORING, FolderLock
from openk_daemon.store.seam import StoreError

AUDIT: Final = "audit"
_FILES: Final = 64
"""Files of the log written at once."""
_CHUNK: Final = 1 << 20


class RestoreRefused(Exception):
    """Nothing was changed. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Restored:
    """`aside`: where what was there before is now; None: there was nothing."""

    verified: Verified
    aside: Path | None


def restore(backup: Path, state: Path, original: Original, *, replace: bool) -> Restored:
    """Put `backup` into the folder `state`. Raises RestoreRefused, BackupDamaged, OSError; whatever it raises, what was
    in `state` still is, there or aside."""
    owner = _owner(state)
    with _held(state, owner):
        found = [name for name in (_store_of(backup), *original.beside, AUDIT) if os.path.lexists(state / name)]
        if found and not replace:
            raise RestoreRefused(
                f"{state} has a store already ({', '.join(found)}): name another folder, or have it moved aside with "
                "--replace"
            )
        for entry in list(os.scandir(state)):
            if entry.name.startswith(RESTORING):
                remove(Path(entry.path))
        partial = state / f"{RESTORING}{os.getpid()}"
        partial.mkdir(mode=0o700)
        try:
            verified = _furnish(backup, partial, original)
            _give(partial, owner)
        except BaseException:
            remove(partial)
            raise
        aside = _set_aside(state, found, owner)
        _take_places(partial, state, verified.manifest.store)
        remove(partial)
        sync_folder(state)
    return Restored(verified, aside)


def _store_of(backup: Path) -> str:
    return manifest.read(backup).store


def _owner(state: Path) -> tuple[int, int]:
    """Whose the folder is. Raises RestoreRefused where it is not fit."""
    try:
        found = os.lstat(state)
    except OSError as error:
        raise RestoreRefused(f"the state folder {state}: {error.strerror}: `install -d -m 0700 -o USER`") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RestoreRefused(f"the state folder {state} is not a folder that only its owner can write: `chmod go-w`")
    if os.geteuid() not in {0, found.st_uid}:
        raise RestoreRefused(f"the state folder {state} belongs to user {found.st_uid}: restore as that user or root")
    return found.st_uid, found.st_gid


@contextmanager
def _held(state: Path, owner: tuple[int, int]) -> Generator[None]:
    """No daemon starts on it meanwhile. Raises RestoreRefused while one runs."""
    try:
        lock = FolderLock(str(state))
    except StoreError as error:
        raise RestoreRefused(str(error)) from error
    try:
        os.chown(state / LOCK, *owner, follow_symlinks=False)
        yield
    finally:
        lock.release()


def _furnish(backup: Path, partial: Path, original: Original) -> Verified:
    """The state as it will be, below `partial`: made from a copy, so that what is verified is what is put back."""
    for name in os.listdir(backup):
        _copy_file(backup / name, partial / name)
    tiles = Tiles(str(partial / AUDIT))
    waiting: list[File] = []

    def keep(files: list[File]) -> None:
        waiting.extend(files)
        if len(waiting) >= _FILES:
            tiles.write(waiting)
            waiting.clear()

    verified = verify(partial, original, keep=keep)
    tiles.write(waiting)
    tiles.write([File(HEAD, verified.text.encode())])
    return verified


def _copy_file(source: Path, target: Path) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(reading, "rb") as old:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise BackupDamaged(f"{source.name} is not a file")
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(writing, "wb") as new:
            shutil.copyfileobj(old, new, _CHUNK)
            new.flush()
            os.fsync(writing)


def _give(partial: Path, owner: tuple[int, int]) -> None:
    if os.geteuid() == owner[0]:
        return
    for folder, folders, files in os.walk(partial):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), *owner, follow_symlinks=False)


def _set_aside(state: Path, found: Sequence[str], owner: tuple[int, int]) -> Path | None:
    if not found:
        return None
    aside = state / f"replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside.mkdir(mode=0o700)
    os.chown(aside, *owner, follow_symlinks=False)
    for name in found:
        os.rename(state / name, aside / name)
    sync_folder(aside)
    sync_folder(state)
    return aside


def _take_places(partial: Path, state: Path, store: str) -> None:
    sync_folder(partial)
    for name in (AUDIT, store):
        os.rename(partial / name, state / name)
    sync_folder(state)
