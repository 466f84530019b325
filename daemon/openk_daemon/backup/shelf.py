"""The folder of backups: which are there, what an interrupted one left, and which are old enough to go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from openk_daemon.audit.tiles import sync_folder
from openk_daemon.backup import manifest
from openk_daemon.backup.seam import Backup, BackupDamaged

PARTIAL: Final = ".partial-"
"""Begins the name of what is being written or removed; whatever else bears it was left behind."""


class Shelf:
    """Its methods block for the disk and raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> Sequence[Backup]:
        """The oldest first, by when they were made. What does not look like one of ours is left alone and left out."""
        found: list[Backup] = []
        for entry in os.scandir(self.folder):
            if manifest.NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with suppress(BackupDamaged):
                    found.append(manifest.summary(entry.name, manifest.read(Path(entry.path))))
        return sorted(found, key=_age)

    def begin(self) -> Path:
        """An empty folder to write into."""
        path = self.folder / f"{PARTIAL}{os.getpid()}"
        path.mkdir(mode=0o700)
        return path

    def finish(self, partial: Path, name: str) -> None:
        """From now on it is a backup: durable under its name."""
        sync_folder(partial)
        os.rename(partial, self.folder / name)
        sync_folder(self.folder)

    def clear(self) -> int:
        """Remove what interrupted work left; how much that was."""
        remains = [Path(entry.path) for entry in os.scandir(self.folder) if entry.name.startswith(PARTIAL)]
        for path in remains:
            remove(path)
        return len(remains)

    def prune(self, keep: int, newest: str) -> Sequence[str]:
        """Remove all but the `keep` newest; `newest` stays, whatever the clock says of it. The names that went."""
        others = [backup for backup in self.list() if backup.name != newest]
        gone = [backup.name for backup in others[: max(0, len(others) - keep + 1)]]
        for name in gone:
            partial = self.folder / f"{PARTIAL}{name}"
            os.rename(self.folder / name, partial)  # half of one must not look like one
            remove(partial)
        return gone


def _age(backup: Backup) -> tuple[int, int]:
    return backup.made, backup.entries


def remove(path: Path) -> None:
    """A folder and what is in it, or a file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_file(path: Path, content: bytes) -> None:
    """A new file, durable. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
