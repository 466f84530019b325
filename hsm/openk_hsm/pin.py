"""Where a PIN comes from: a systemd credential, a file, a descriptor. Read into locked memory, wiped after use.

Never from argv or the environment; never as `str` or `bytes`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_hsm.errors import WrongPin
from openk_memory.region import Region

MAX_PIN: Final = 1024
_NEWLINE: Final = b"\n\r"


class PinMissing(WrongPin):
    """There is no PIN to try: nothing was sent to the token, nothing latches."""


@dataclass(frozen=True, slots=True)
class PinSource:
    """Exactly one of these is set. `fd` is read to its end once and closed."""

    credential: str = ""
    file: Path | None = None
    fd: int | None = None

    def _open(self) -> int:
        if self.fd is not None:
            return self.fd
        path = self.file
        if self.credential:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise PinMissing(
                    f"no credentials: CREDENTIALS_DIRECTORY is not set. Give the unit LoadCredentialEncrypted="
                    f"{self.credential}:FILE, or use --pin-file"
                )
            if "/" in self.credential or self.credential.startswith("."):
                raise PinMissing("a credential's name is a plain file name")
            path = Path(folder, self.credential)
        if path is None:
            raise PinMissing("no PIN source: use --pin-credential, --pin-file or --pin-fd")
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise PinMissing(f"the PIN cannot be read from {path}: {error.strerror}") from None

    @contextmanager
    def read(self) -> Generator[memoryview]:
        """The PIN in locked memory, without its final newline; wiped at the end. Raises PinMissing."""
        with Region(MAX_PIN) as region:
            descriptor = self._open()
            length = 0
            try:
                while length < MAX_PIN:
                    count = os.readv(descriptor, [region.view[length:]])
                    if not count:
                        break
                    length += count
            except OSError as error:
                raise PinMissing(f"the PIN cannot be read: {error.strerror}") from None
            finally:
                os.close(descriptor)
            if length == MAX_PIN:
                raise PinMissing(f"the PIN is longer than {MAX_PIN - 1} bytes")
            while length and region.view[length - 1] in _NEWLINE:
                length -= 1
            if not length:
                raise PinMissing("the PIN is empty: nothing was tried. Check the credential")
            yield region.view[:length]
