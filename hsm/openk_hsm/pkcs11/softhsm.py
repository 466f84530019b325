"""SoftHSM2's token is a folder of files that several workers share. Two faults of 2.6.1 are kept from its users here.

*Overlooked objects.* A counter tells processes that the folder has changed, and each looks again only when the counter
is not what it last read or wrote.  So of two processes that make objects at once one does not see the other's, until
there is a next change (in 16 of 40 tries, measured).  Here those who make or destroy objects take turns, and look for
objects in their turn before they do: then nothing that they have not seen is counted before their own.

*The emptied token.* C_Login empties `token.object`, which holds the token's keys under its PIN, and writes it anew: a
process that is killed in between (22 of 150 kills of a process that logs in all the time, measured) leaves no token.
Here a copy is made before each login, in turn, and put back before the module is loaded.

    TOKENS/openk.turn              locked (flock) by whose turn it is
    TOKENS/<uuid>/openk.token      the copy

SoftHSM2 takes no notice of either: of its folder of tokens it reads the folders, of a token's folder its own files.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from openk_hsm import journal
from openk_hsm.errors import HsmError
from openk_hsm.pkcs11.care import Care

MODULE: Final = "libsofthsm2.so"
_FOLDER_OF_TOKENS: Final = "directories.tokendir"
_FILE: Final = "token.object"
_COPY: Final = "openk.token"
_TURN: Final = "openk.turn"
_SETTLED: Final = 0.1
"""Seconds that a token file must stay empty: a program that takes no turns may just be logging in."""
_MOST: Final = 1 << 16
"""Bytes of a token file; 320 are usual."""


class SoftHsmCare(Care):
    """`tokens`: `directories.tokendir`."""

    def __init__(self, tokens: Path) -> None:
        self._tokens = tokens

    @contextmanager
    def load(self) -> Generator[None]:
        with self._turn():
            self._put_back()
            yield

    @contextmanager
    def log_in(self, serial: str) -> Generator[None]:
        with self._turn():
            self._copy(serial)
            yield

    @contextmanager
    def change(self) -> Generator[None]:
        with self._turn():
            yield

    @contextmanager
    def _turn(self) -> Generator[None]:
        """Ends with the process, too; one that hangs is killed by its alarm (openk_hsm.service)."""
        path = self._tokens / _TURN
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HsmError(
                f"cannot write {path}: {error.strerror}. SoftHSM2's folder of tokens (directories.tokendir in "
                f"{configuration()}) must exist and belong to the user that runs this"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _copy(self, serial: str) -> None:
        """A token's folder is named by a UUID that ends with its serial number."""
        for folder in self._tokens.glob("*-*"):
            if folder.name.replace("-", "").endswith(serial):
                now = _read(folder / _FILE)
                if now and now != _read(folder / _COPY):
                    _replace(folder / _COPY, now)

    def _put_back(self) -> None:
        for copy in self._tokens.glob(f"*/{_COPY}"):
            kept, file = _read(copy), copy.with_name(_FILE)
            if not kept or _read(file) != b"":
                continue
            time.sleep(_SETTLED)
            if _read(file) == b"":
                _replace(file, kept)
                journal.log("warning", "put back a token that SoftHSM2 had emptied at a login", token=copy.parent.name)


def care_for(module: str) -> Care:
    """What that module needs."""
    tokens = token_folder(configuration()) if Path(module).name == MODULE else None
    return Care() if tokens is None else SoftHsmCare(tokens)


def configuration() -> Path:
    """As SoftHSM2 looks for it (softhsm2.conf(5))."""
    given = os.environ.get("SOFTHSM2_CONF")
    if given:
        return Path(given)
    own = Path(os.environ.get("HOME", "/nonexistent"), ".config/softhsm2/softhsm2.conf")
    return own if own.exists() else Path("/etc/softhsm/softhsm2.conf")


def token_folder(configured: Path) -> Path | None:
    """`directories.tokendir` of that configuration; None where it does not say."""
    try:
        lines = configured.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == _FOLDER_OF_TOKENS:
            return Path(value.strip())
    return None


def _read(path: Path) -> bytes | None:
    """At most `_MOST` bytes; None where there is no such file. What it holds is protected by the token's PIN."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError:
        return None


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all, durably. A failure is told, and leaves the file as it was."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(path)
    except OSError as error:
        journal.log("warning", "cannot keep a copy of the token", file=path.name, text=error.strerror)
