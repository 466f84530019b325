"""The state folder: whether it is fit to trust, and who alone may use it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import Final

from openk_daemon.store.seam import Foreign, StoreError

LOCK: Final = "lock"
RESTORING: Final = ".restoring-"
"""Begins the name of what a restore works in."""


class FolderRefused(StoreError):
    """The folder is missing, not writable, or others could change what is in it. The text is for the
    operator who starts the daemon, and says what to do."""

    code = "daemon.misconfigured"


def check_folder(path: str, name: str = "state folder") -> None:
    """Raise FolderRefused unless `path` is a folder of ours that nobody else can write or replace. `name`: what it is,
    for the text."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        raise FolderRefused(f"the {name} {path} does not exist: create it with `install -d -m 0700`") from None
    except OSError as error:
        raise FolderRefused(f"the {name} {path} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise FolderRefused(f"the {name} {path} is not a folder (a symbolic link is not taken either)")
    if found.st_uid != os.geteuid():
        raise FolderRefused(
            f"the {name} {path} belongs to user {found.st_uid}, but the daemon runs as {os.geteuid()}: chown it"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FolderRefused(f"others can write the {name} {path}: run `chmod go-w` on it")
    _check_parents(os.path.abspath(path), name)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise FolderRefused(f"the {name} {path} cannot be written: mount it read-write, or `chmod u+rwx` it")


def check_restored(path: str) -> None:
    """Raise FolderRefused where a restore was interrupted: what is missing there would be made anew, empty."""
    if any(name.startswith(RESTORING) for name in os.listdir(path)):
        raise FolderRefused(f"a restore into the state folder {path} was interrupted: run `openkd --restore` again")


def _check_parents(path: str, name: str) -> None:
    """Whoever can rename a parent can put another folder in this one's place."""
    while path != "/":
        path = os.path.dirname(path)
        mode = os.stat(path).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise FolderRefused(f"others can write {path}, and so replace the {name}: run `chmod o-w` on it")


class FolderLock:
    """Holds the folder for this process; the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: str, name: str = "state folder") -> None:
        """Raises Foreign when another process holds the folder, FolderRefused when no lock can be made."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(os.path.join(path, LOCK), flags, 0o600)
        except OSError as error:
            reason = "a read-only medium" if error.errno == errno.EROFS else error.strerror
            raise FolderRefused(f"no lock file can be made in the {name} {path}: {reason}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Foreign(
                f"another openkd (process {holder}) uses the {name} {path}: stop it, or name another folder"
            ) from None
        with suppress(OSError):  # a full disk: the lock is held all the same, only the number is missing
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let another process have the folder. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
