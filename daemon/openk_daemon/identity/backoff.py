"""Whoever guesses waits longer each time: the brute-force guard of anything that is signed in to. No clock, no I/O.

    attempt 1 .. free      at once
    attempt free + 1       `first` seconds after the last
    attempt free + 2       `first` * `factor` seconds after the last, ... at most `longest`
    `forget` seconds without an attempt: as if nothing had been

An attempt counts as failed from the moment it is admitted, and `succeeded` takes that back: tries that run side by
side gain nothing.  A subject is whatever is guessed at together with who guesses (a uid and a name), so that nobody can
lock somebody else out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SHARED: Final = ""
"""The subject that newcomers share while the table is full: guessing under many names is guessing under one."""
_EXPONENT_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Pace:
    """Times are seconds. `subjects`: remembered at once. Raises ValueError where a bound makes no sense."""

    free: int = 3
    first: float = 1.0
    factor: float = 2.0
    longest: float = 900.0
    forget: float = 86_400.0
    subjects: int = 10_000

    def __post_init__(self) -> None:
        if self.free < 1 or self.subjects < 1 or self.factor < 1 or not 0 < self.first <= self.longest < self.forget:
            raise ValueError("a pace has free, subjects, factor >= 1 and 0 < first <= longest < forget")

    def pause(self, failures: int) -> float:
        """Seconds after the last attempt, where so many have failed."""
        over = failures - self.free
        if over < 0:
            return 0.0
        if over > _EXPONENT_MOST:
            return self.longest
        return min(self.longest, self.first * self.factor**over)


@dataclass(slots=True)
class Record:
    """What is known of a subject; what must outlive a restart is this."""

    failures: int
    last: float


@dataclass(slots=True)
class Backoff:
    """Times are seconds of any clock that does not go back; across restarts, one that goes on."""

    pace: Pace = field(default_factory=Pace)
    _records: dict[str, Record] = field(default_factory=dict[str, Record])

    def __len__(self) -> int:
        return len(self._records)

    def wait(self, subject: str, now: float) -> float:
        """Seconds until an attempt would be admitted; 0.0: now."""
        record = self._find(subject, now)
        if record is None:
            return 0.0
        return max(0.0, record.last + self.pace.pause(record.failures) - now)

    def attempt(self, subject: str, now: float) -> float:
        """0.0: go on, and this attempt counts as failed until `succeeded`. Otherwise the seconds to wait; a refused
        attempt counts for nothing."""
        wait = self.wait(subject, now)
        if wait > 0.0:
            return wait
        place = self._place(subject, now)
        record = self._records.pop(place, None)  # and in again, last: the table is in the order of the last attempts
        self._records[place] = Record(1 if record is None else record.failures + 1, now)
        return 0.0

    def succeeded(self, subject: str) -> None:
        """Forget what this subject failed at. What is shared is not forgotten: one who succeeds would free all."""
        if subject != SHARED:
            self._records.pop(subject, None)

    def records(self) -> Mapping[str, Record]:
        """To be kept across a restart; give them to a new Backoff's `restore`."""
        return self._records

    def restore(self, records: Mapping[str, Record]) -> None:
        """The newest of them, as many as are remembered."""
        newest = sorted(records.items(), key=lambda item: item[1].last)[-self.pace.subjects :]
        self._records = {subject: Record(record.failures, record.last) for subject, record in newest}

    def _find(self, subject: str, now: float) -> Record | None:
        """What counts for the subject now."""
        return self._records.get(self._place(subject, now))

    def _place(self, subject: str, now: float) -> str:
        """Where the subject is remembered, or would be. Forgets what is old."""
        while self._records:
            oldest = next(iter(self._records))
            if now - self._records[oldest].last <= self.pace.forget:
                break
            del self._records[oldest]
        if subject in self._records or len(self._records) < self.pace.subjects:
            return subject
        return SHARED
