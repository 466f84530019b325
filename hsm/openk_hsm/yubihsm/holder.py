"""One process at a time follows a device's log: a second one would see the first one's commands as a stranger's."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from openk_hsm.errors import HsmError, Unavailable

PATIENCE: Final = 1.0
"""Seconds that the process before us has to die."""


class Holder:
    """Holds the device of that serial until `close`, or the end of the process."""

    def __init__(self, folder: Path, serial: str) -> None:
        """Raises Unavailable when another process of this folder uses the device."""
        path = folder / f"yubihsm-{serial}.lock"
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise HsmError(f"{path} cannot be written: {error.strerror}") from None
        until = time.monotonic() + PATIENCE
        while not self._lock():
            if time.monotonic() > until:
                self.close()
                raise Unavailable(
                    f"another process uses the YubiHSM {serial}: one worker is enough, as the device does one command "
                    "at a time; stop it for commands such as `openk-hsm init`"
                )
            time.sleep(0.05)

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._descriptor)
