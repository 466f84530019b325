"""What a backup needs of a store, and what becomes of one. Any store that is a file can bring an `Original`; one that
is a server of its own (PostgreSQL, objects) is backed up by that server's means, and has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol


class Copy(Protocol):
    """A store's copy that nobody writes to. One thread at a time."""

    def check(self, going_on: Callable[[], None]) -> None:
        """Read all of it, and see that it belongs together. `going_on` is called now and then; what it raises ends
        this. Raises StoreError."""
        ...

    def groups(self) -> Iterator[Sequence[bytes]]:
        """The entries of the log from the first on. Raises StoreError where one is missing."""
        ...

    def __enter__(self) -> Copy: ...

    def __exit__(
        self, type_: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Original(Protocol):
    """A store that can be copied while commits go on, on any thread."""

    @property
    def beside(self) -> Sequence[str]:
        """Names of what lies beside its file while it is open, and after a crash."""
        ...

    def bytes(self) -> int:
        """About how large a copy is. Raises OSError."""
        ...

    def gathered(self) -> int:
        """Bytes that wait to be moved into its file, and cannot be while it is copied. Raises OSError."""
        ...

    def copy(self, into: str, piece: Callable[[int, int], None]) -> str:
        """Copy what is committed now into the folder `into`, durable, as one file: its name. `piece` is called after
        each piece with the bytes that are copied and those of all; what it raises ends this. Raises StoreError,
        OSError."""
        ...

    def open(self, folder: str) -> Copy:
        """The copy in `folder`. Raises StoreError."""
        ...


class Reason(StrEnum):
    """Why there is no backup: a label of metrics, so the list is short."""

    FOLDER = "folder"  # it is missing, cannot be written, or others can write it
    BUSY = "busy"  # another process makes one there
    SPACE = "space"
    DAMAGED = "damaged"  # the store, or what was written, is not what the log's signed head says
    UNSIGNED = "unsigned"  # the HSM has signed no head yet
    DISK = "disk"
    STOPPED = "stopped"  # openkd stops
    INTERNAL = "internal"  # a mistake in openk: the log has it whole


class BackupFailed(Exception):
    """`text` says what is wrong, without paths: for clients and the event stream. The cause has the rest."""

    code = "backup.failed"

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text

    def again(self) -> BackupFailed:
        """The same for another who waits: raised twice it would gather the frames of both."""
        return BackupFailed(self.reason, self.text)


class BackupDamaged(Exception):
    """A backup is not whole, or not what it says. The text is for whoever asked to have it looked at."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One that was verified when it was made. `made`: Unix seconds. `signed` of its `entries` are under the head in
    it. `bytes`: of the store's copy."""

    name: str
    made: int
    entries: int
    signed: int
    bytes: int
