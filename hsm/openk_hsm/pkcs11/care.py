"""What a PKCS#11 back end does around its module's calls for the sake of the token's other processes.

Nothing, for most modules: `Care`. SoftHSM2 keeps its token in files and needs more: `openk_hsm.pkcs11.softhsm`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class Care:
    """`load` comes before all; `change` is called as often as need be, never within another."""

    @contextmanager
    def load(self) -> Generator[None]:
        """Around loading and C_Initialize."""
        yield

    @contextmanager
    def log_in(self, serial: str) -> Generator[None]:  # noqa: ARG002 - for those who need it
        """Around C_Login to the token of that serial number."""
        yield

    @contextmanager
    def change(self) -> Generator[None]:
        """Around looking for token objects in order to make or destroy them, and doing so."""
        yield
