"""SoftHSM2 behind a module of ours that spoils some of its functions: `pkcs11_shim/shim.c` says which words it knows."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.foreign_tokens import ForeignToken
from tests.support.tokens import MODULE, Token

SOURCE = Path(__file__).parent / "pkcs11_shim" / "shim.c"


def compile_shim(folder: Path) -> Path:
    """The module, built in that folder."""
    module = folder / "libshim.so"
    command = ["gcc", "-Wall", "-Werror", "-Wno-incompatible-pointer-types", "-shared", "-fPIC", "-o", str(module)]
    subprocess.run([*command, str(SOURCE), "-ldl"], check=True, capture_output=True, timeout=60)
    return module


@dataclass(frozen=True)
class Shim:
    """A SoftHSM2 token seen through the shim."""

    module: Path
    token: Token

    @property
    def switch(self) -> Path:
        """While this file exists the token has been pulled out."""
        return self.token.folder / "removed"

    def spoilt(self, *words: str) -> ForeignToken:
        """The token as whoever loads the module with these words sees it."""
        environment = {
            **self.token.environment,
            "SHIM_MODULE": MODULE,
            "SHIM": " ".join(words),
            "SHIM_REMOVED": str(self.switch),
        }
        return ForeignToken(f"pkcs11:token=openk-dev?module-path={self.module}", self.token.pin_file, environment)
