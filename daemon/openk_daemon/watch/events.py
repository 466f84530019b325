"""The event stream: what happens to the daemon as a whole, in order, kept for whoever asks what came since.

    publish ─▶ ring of the newest KEPT events ─▶ since(cursor): those that follow it, and how many of them are gone
                        └─▶ whoever waits is answered at once

It is asked for, not pushed (docs/adr/0011): a reader has a cursor and no queue, so one that is slow costs nothing,
delays nobody, and is told how much it missed; each answer is a request of its own, decided by policy and recorded.
Nothing here names a vault, a key or a caller.

    cursor = RUN ":" NUMBER    RUN: 8 hex digits, another at each start; NUMBER: of the last event that was read
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from secrets import token_hex
from time import monotonic
from typing import Final

from openk_hsm.pending import Pending, resolved

KEPT: Final = 1024
"""Events remembered; some 300 bytes each."""
ANSWERED: Final = 256
"""Events in one answer; a reader asks on with the cursor that comes with them."""
WAITERS: Final = 64
"""Who waits for the next event, at most. When one more comes, somebody is answered with nothing new: of those of the
user who has the most of them waiting, the one whose time ends first. Whoever floods displaces itself."""
TEXT_MOST: Final = 512
INFO: Final = "info"
"""The severity of what needs nobody."""
_CURSOR: Final = re.compile(r"([0-9a-f]{8}):(0|[1-9][0-9]{0,14})")


class Kind(StrEnum):
    ALERT_RAISED = "alert.raised"
    ALERT_CLEARED = "alert.cleared"
    HEALTH_CHANGED = "health.changed"
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_REFUSED = "config.refused"
    POLICY_RELOADED = "policy.reloaded"
    POLICY_REFUSED = "policy.refused"
    KEYS_ROTATED = "keys.rotated"
    BACKUP_MADE = "backup.made"
    BACKUP_FAILED = "backup.failed"
    SEALED = "sealed"
    UNSEALED = "unsealed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Event:
    """`number` counts from 1 since the start; `at`: Unix seconds. `severity`: an alert's, else `info`. `subject`: the
    alert's name, or empty. `value`: of its signal."""

    number: int
    kind: Kind
    at: float
    severity: str
    subject: str
    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """`cursor`: to go on with. `lost`: events between the cursor that was given and the first of these that are not
    kept any more. `restarted`: that cursor is of another run; these are this run's, from its first."""

    events: Sequence[Event]
    cursor: str
    lost: int
    restarted: bool


@dataclass(slots=True, eq=False)
class _Waiter:
    """`until`: monotonic seconds."""

    until: float
    uid: int
    pending: Pending[None] = field(default_factory=Pending[None])


class BadCursor(ValueError):
    """It is none that was ever given out."""


class Events:
    """Not for threads. Call `expire` now and then; `close` it before connections drain: nobody may wait then."""

    def __init__(self, run: str = "") -> None:
        self.run = run or token_hex(4)
        self.last = 0
        """Number of the newest event."""
        self.lost = 0
        """Events that some reader was told it missed, for metrics."""
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._closed = False
        self._waiters: list[_Waiter] = []

    @property
    def waiting(self) -> int:
        """How many readers wait, for metrics."""
        return len(self._waiters)

    @property
    def cursor(self) -> str:
        """Of the newest event: what follows it is yet to come."""
        return self._cursor_at(self.last)

    def publish(
        self, kind: Kind, at: float, text: str, *, severity: str = INFO, subject: str = "",
        value: float | None = None,
    ) -> None:  # fmt: skip
        """`text` names no vault, key, caller or path."""
        self.last += 1
        self._kept.append(Event(self.last, kind, at, severity, subject, text[:TEXT_MOST], value))
        self._answer(self._waiters)

    def since(self, cursor: str | None) -> Batch:
        """What followed `cursor`; None: all that is kept. Raises BadCursor."""
        number, restarted = self._read(cursor)
        oldest = self.last - len(self._kept) + 1
        skipped = max(0, oldest - 1 - number)
        found = [event for event in self._kept if event.number > number][:ANSWERED]
        self.lost += skipped
        return Batch(found, self._cursor_at(found[-1].number if found else self.last), skipped, restarted)

    def wait(self, cursor: str | None, seconds: float, uid: int = 0) -> Pending[None]:
        """Settled when something follows `cursor`, or when the time is over. `uid`: who waits. Raises BadCursor."""
        number, restarted = self._read(cursor)
        if self._closed or seconds <= 0 or restarted or self.last > number:
            return resolved(None)
        if len(self._waiters) >= WAITERS:
            crowd = Counter(waiter.uid for waiter in self._waiters)
            most = max(crowd.values())
            self._answer([next(waiter for waiter in self._waiters if crowd[waiter.uid] == most)])
        waiter = _Waiter(monotonic() + seconds, uid)
        self._waiters.append(waiter)
        self._waiters.sort(key=_until)
        return waiter.pending

    def expire(self, now: float) -> None:
        """Answer those whose time is over. `now`: monotonic seconds."""
        self._answer([waiter for waiter in self._waiters if waiter.until <= now])

    def close(self) -> None:
        """Answer everybody, and let nobody wait any more."""
        self._closed = True
        self._answer(self._waiters)

    def _read(self, cursor: str | None) -> tuple[int, bool]:
        if cursor is None:
            return 0, False
        found = _CURSOR.fullmatch(cursor)
        if found is None or (found[1] == self.run and int(found[2]) > self.last):
            raise BadCursor(cursor)
        return (int(found[2]), False) if found[1] == self.run else (0, True)

    def _cursor_at(self, number: int) -> str:
        return f"{self.run}:{number}"

    def _answer(self, answered: Sequence[_Waiter]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter not in answered]
        for waiter in answered:
            waiter.pending.resolve(None)


def _until(waiter: _Waiter) -> float:
    return waiter.until
