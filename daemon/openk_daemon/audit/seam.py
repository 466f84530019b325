"""What the pipeline needs of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from openk_daemon.store.seam import Committed, Write
from openk_hsm.pending import Pending


@dataclass(frozen=True, slots=True)
class Head:
    """The newest signed checkpoint (C2SP tlog-checkpoint text) and how far the log has grown since."""

    checkpoint: str
    signed_size: int
    size: int


@dataclass(frozen=True, slots=True)
class Proof:
    """Inclusion of `index` in the tree of `size` (RFC 6962 section 2.1.1), or with `old_size` consistency."""

    index: int
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: str


class Ledger(Protocol):
    """Commits a request's writes and its record together; knows the tree."""

    def commit(self, entry: str, writes: Sequence[Write] = ()) -> Pending[Committed]:
        """`entry` is one line of JSON without time and writes: the ledger adds `"time"` and, for each write,
        kind, id, version and the SHA-256 of the body, so that a record in the store which was edited behind
        our back can be told. Fails with StoreError (nothing written) or AuditUnavailable."""
        ...

    def head(self) -> Pending[Head]:
        """Signs a checkpoint first if the log has grown."""
        ...

    def prove(self, index: int, old_size: int | None = None) -> Pending[Proof]: ...

    def tail(self, first: int, limit: int) -> Pending[Sequence[str]]: ...


class AuditUnavailable(Exception):
    code = "audit.unavailable"


class AuditDamaged(Exception):
    """The log is shorter than a checkpoint says, or hashes differ: the daemon does not start."""

    code = "audit.damaged"


class UnknownEntry(Exception):
    """No entry of that index, or no tree of that size, is in the log."""

    code = "audit.unknown_entry"


class EntryTooLarge(Exception):
    """The record is longer than a C2SP entry bundle can hold (65,535 bytes): nothing was written."""

    code = "request.too_large"
