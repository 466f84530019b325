"""What openk needs of a store: records with versions, ordered queries, a log, and one atomic commit.

The store sees ciphertext and keyed digests only.  A `Unit` is the change of one request together with its
audit record: both become durable, or neither (invariant 1 and 5).  Stores without transactions (files,
objects) write a durable intent first; callers do not notice.

All methods are called on the trio thread and return at once; group commit happens behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openk_daemon.frozen import frozen
from openk_hsm.pending import Pending


@dataclass(frozen=True, slots=True)
class Record:
    """`kind` names the type ("vault", "key", "key-version", "secret", ...); `id` is a keyed digest or a
    composite of them, ordered bytewise; `version` counts from 1 and is the optimistic lock."""

    kind: str
    id: bytes
    version: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """Replace the body of (kind, id). `expected` is the version it must have now, 0 for "does not exist";
    the new version is expected + 1. `body` None deletes. A mismatch makes the whole unit fail with Conflict."""

    kind: str
    id: bytes
    expected: int
    body: bytes | None


@frozen
class Unit:
    """Writes and the audit record that tells of them; either part may be empty."""

    writes: Sequence[Write] = ()
    entry: bytes | None = None


@frozen
class Committed:
    """`index` is the place of the unit's entry in the log (from 0), -1 without one; `sequence` numbers
    commits for the change feed."""

    index: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Change:
    sequence: int
    kind: str
    id: bytes
    version: int
    deleted: bool


class StoreError(Exception):
    """Base; `code` is a name in the wire's code table."""

    code = "store.unavailable"

    def again(self) -> StoreError:
        """The same error for another caller: one that is raised twice would gather the frames of both."""
        copy = type(self)(*self.args)
        copy.__cause__ = self.__cause__
        return copy


class Conflict(StoreError):
    code = "store.conflict"


class Full(StoreError):
    code = "store.full"


class Damaged(StoreError):
    code = "store.damaged"


class Behind(StoreError):
    """The change feed does not reach back so far any more: the reader missed some, and must read the records anew."""


class Foreign(StoreError):
    """Made by another version of openk, or in use by another daemon."""

    code = "store.foreign"


class Store(Protocol):
    def read(self, kind: str, id_: bytes) -> Pending[Record | None]: ...

    def query(self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1000) -> Pending[Sequence[Record]]:
        """Records of a kind whose id begins with `prefix` and is greater than `after`, in order of id."""
        ...

    def commit(self, unit: Unit) -> Pending[Committed]:
        """Queue for the next group commit. Settles when durable; fails with a StoreError, then nothing of
        the unit was written. Units settle in log order."""
        ...

    def changes(self, after: int, limit: int = 1000) -> Pending[Sequence[Change]]:
        """Whole units behind the one of that sequence, at least one where there are any, and not many more changes than
        `limit`. Fails with Behind when units between are kept no longer."""
        ...

    def entries(self, first: int, limit: int = 256) -> Pending[Sequence[bytes]]:
        """Log entries from index `first` on, as they were committed."""
        ...

    def log_size(self) -> int:
        """Entries committed so far."""
        ...

    def close(self) -> None:
        """Commit what is queued, then close. Idempotent."""
        ...


class LocalStore(Store, Protocol):
    """A store inside this process, which is what `openkd` keeps its log in: it settles commits in groups,
    and what it reads is settled when the call returns."""

    after_group: Callable[[], None]
    """Runs on the trio thread after all units of a group were settled: replies made by them leave there."""

    @property
    def failing(self) -> StoreError | None:
        """Why the newest group could not be written; None once one could. Conflicts do not count."""
        ...

    def keep_changes(self, units: int) -> None:
        """How many of the newest units stay in the change feed from now on, at least (feed.py)."""
        ...

    def kinds(self) -> Pending[Sequence[str]]:
        """The kinds that have records now, in order."""
        ...
