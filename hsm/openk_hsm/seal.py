"""The seal of a token: while it is set no worker logs in, whatever restarts it. A daemon sets it when it is sealed,
and takes it away when an operator whom policy allows unseals it; `openk-hsm unseal` does so without a daemon.

A process that was sealed ends, so that nothing stays in a vendor's memory; the one that is started in its place reads
the mark and waits, without a login and without the PIN.
"""

from __future__ import annotations

from pathlib import Path

from openk_hsm.errors import HsmError, Sealed
from openk_hsm.marks import is_marked, mark_path, remove_mark, write_mark


class Seal:
    """`folder`: the worker's state folder, shared by all workers of the token. `uri`: names the token."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.path = mark_path(folder, uri, "seal")

    @property
    def is_set(self) -> bool:
        return is_marked(self.path)

    def set(self, reason: str) -> Sealed:
        """Durable when this returns; what to tell the daemon. A folder that cannot be written is HsmError."""
        try:
            write_mark(self.path, reason=reason)
        except OSError as error:
            raise HsmError(f"the seal cannot be written to {self.path.parent}: {error.strerror}") from None
        return self.error()

    def error(self) -> Sealed:
        return Sealed("the worker is sealed: it is logged out until an operator unseals openk")

    def clear(self) -> bool:
        """Whether it was set. After a login that succeeded, or for operators."""
        return remove_mark(self.path)
