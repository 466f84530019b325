"""Read the policy folder: only files that nobody but root and the daemon's user could have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

FILE_MOST: Final = 4 << 20
"""Bytes of one file: far beyond what a person writes, short of what would hold up the daemon."""


class Unfit(Exception):
    """A file or the folder cannot be used; `str()` says why and what to do, with the file's name and no path."""


def policy_files(folder: Path) -> list[str]:
    """Names of the *.cedar files in `folder`, sorted; not those of folders inside it. Raises Unfit."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unfit(f"the policy folder: {error.strerror}: create it, or make it readable for the daemon") from error
    try:
        _check(os.fstat(descriptor), "the policy folder")
        names = os.listdir(descriptor)
    finally:
        os.close(descriptor)
    found = sorted(name for name in names if name.endswith(".cedar") and not name.startswith("."))
    if not found:
        raise Unfit("the policy folder has no *.cedar file: copy the shipped ones, or nobody could do anything")
    return found


def read_file(folder: Path, name: str) -> str:
    """The text of a file in `folder`. Raises Unfit."""
    try:
        # O_NONBLOCK: a FIFO of that name must not hold up the daemon; _check refuses it.
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            _check(os.fstat(descriptor), name)
            data = file.read(FILE_MOST + 1)
    except FileNotFoundError as error:
        raise Unfit(f"{name}: is missing: copy it from the policies shipped with openk") from error
    except OSError as error:
        raise Unfit(f"{name}: {error.strerror}: make it a readable file") from error
    if len(data) > FILE_MOST:
        raise Unfit(f"{name}: larger than {FILE_MOST} bytes: split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit(f"{name}: byte {error.start} is not UTF-8: policy files are UTF-8 text") from error


def _check(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise Unfit(f"{name}: is no regular file: replace it by one")
    if status.st_mode & stat.S_IWOTH:
        raise Unfit(f"{name}: everybody may write to it: chmod o-w")
    if status.st_uid not in {0, os.geteuid()}:
        raise Unfit(f"{name}: belongs to user {status.st_uid}: chown it to root or to the daemon's user")
