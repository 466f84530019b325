"""The wrong-PIN latch: after one wrong PIN nobody tries again, in no process and after no restart, until an
operator runs `openk-hsm unlatch`. A token counts wrong PINs and locks itself.

One file a token, in the worker's state folder; its lock file also serialises logins of several workers, which
would otherwise each try the wrong PIN once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openk_hsm.errors import HsmError, WrongPin
from openk_hsm.marks import is_marked, mark_path, remove_mark, write_mark


class Latch:
    """`folder`: where state may be kept, shared by all workers of the token. `uri`: names the token."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.path = mark_path(folder, uri, "latch")
        self._lock = mark_path(folder, uri, "lock")
        self._uri = uri

    @property
    def is_set(self) -> bool:
        return is_marked(self.path)

    def error(self) -> WrongPin:
        return WrongPin(
            "the token did not accept the PIN earlier; it is not tried again until `openk-hsm unlatch`",
            device="latched",
        )

    @contextmanager
    def guarded(self) -> Generator[None]:
        """Hold the login lock; sets the latch when the body raises WrongPin for a PIN that was really tried.
        Raises WrongPin at once when the latch is set."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise HsmError(f"the latch folder {self.path.parent} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self.is_set:
                raise self.error()
            try:
                yield
            except WrongPin as error:
                if error.device:  # the token said so; PinMissing and the like have no device code
                    write_mark(self.path, device=error.device, uri=self._uri)  # before the error goes anywhere
                raise
        finally:
            os.close(descriptor)

    def clear(self) -> bool:
        """Whether it was set. For operators, after the credential was corrected."""
        return remove_mark(self.path)
