"""A SoftHSM2 token on a device that can be pulled out, reset, or made to answer with a code: `pkcs11_shim/outage.c`."""

from __future__ import annotations

import mmap
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.tokens import MODULE, Token

SOURCE: Final = Path(__file__).parent / "pkcs11_shim" / "outage.c"
_STATE: Final = struct.Struct("=5I")


def compile_outage(folder: Path) -> Path:
    """The module, built in that folder."""
    module = folder / "libsofthsm2.so"  # its name tells openk what care the files behind it need
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(module), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return module


@dataclass
class Device:
    """`token` behind the module of `compile_outage`."""

    module: Path
    token: Token
    sessions: int = 0
    """It allows so many to all processes together; 0: any number."""

    def __post_init__(self) -> None:
        path = self.token.folder / "outage"
        path.write_bytes(bytes(_STATE.size))
        with path.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), _STATE.size)
        self._resets = 0
        self._sessions = self.token.folder / "sessions"
        self._sessions.write_bytes(bytes(self.sessions))

    @property
    def uri(self) -> str:
        return f"pkcs11:token=openk-dev?module-path={self.module}"

    @property
    def environment(self) -> dict[str, str]:
        """For the worker."""
        behind = {"SHIM_MODULE": MODULE, "SHIM_OUTAGE": str(self.token.folder / "outage")}
        behind["SHIM_SESSIONS"] = str(self._sessions)
        return {**self.token.environment, **behind}

    def pull_out(self) -> None:
        self._resets += 1
        self._write(gone=1)

    def plug_in(self) -> None:
        self._write()

    def reset(self) -> None:
        """It forgets sessions, logins and session objects."""
        self._resets += 1
        self._write()

    def answer(self, code: int, count: int, after: int = 0) -> None:
        """What the next `count` operations answer, once `after` others went well."""
        self._write(code=code, count=count, after=after)

    @property
    def answers_left(self) -> int:
        count: int = _STATE.unpack(self._state[:])[3]
        return count

    def _write(self, gone: int = 0, code: int = 0, count: int = 0, after: int = 0) -> None:
        self._state[:] = _STATE.pack(gone, self._resets, code, count, after)
