"""What the numbers were: a ring of an hour in steps of 10 s, and one of a week in steps of 5 min.

    every 10 s ─▶ hour: 360 slots ─▶ when 30 are full ─▶ week: 2016 slots of mean, least and greatest

Bounded: a signal takes 360 + 3 * 2016 numbers of 4 bytes, 25 kB; `BYTES` * signals in all, touched from the start.
It is memory: a restart begins anew (Prometheus is for longer, docs/operations.md).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Final

STEP: Final = 10.0
"""Seconds between two readings."""
HOUR: Final = 360
"""Slots of STEP."""
ROLLED: Final = 30
"""Readings in one slot of the week: 5 minutes."""
WEEK: Final = 2016
"""Slots of ROLLED * STEP."""
BYTES: Final = 4 * (HOUR + 3 * WEEK)
"""Of one signal."""


@dataclass(frozen=True, slots=True)
class Course:
    """Oldest first; the newest is at the answer's `end`. NaN: not known then. `lows` and `highs`: of rolled slots."""

    values: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


class _Ring:
    __slots__ = ("_at", "_slots", "count")

    def __init__(self, size: int) -> None:
        self._slots = array("f", [nan]) * size
        self._at = 0
        self.count = 0

    def add(self, value: float) -> None:
        self._slots[self._at] = value
        self._at = (self._at + 1) % len(self._slots)
        self.count = min(self.count + 1, len(self._slots))

    def values(self) -> array[float]:
        """Oldest first."""
        if self.count < len(self._slots):
            return self._slots[: self.count]
        return self._slots[self._at :] + self._slots[: self._at]

    def last(self, count: int) -> array[float]:
        return self.values()[-count:]


class _Track:
    """One signal's rings."""

    __slots__ = ("highs", "hour", "lows", "means")

    def __init__(self) -> None:
        self.hour, self.means, self.lows, self.highs = _Ring(HOUR), _Ring(WEEK), _Ring(WEEK), _Ring(WEEK)

    def roll(self) -> None:
        known = [value for value in self.hour.last(ROLLED) if not isnan(value)]
        self.means.add(sum(known) / len(known) if known else nan)
        self.lows.add(min(known, default=nan))
        self.highs.add(max(known, default=nan))


class History:
    """Not for threads. `names`: the signals, fixed for its life."""

    def __init__(self, names: Sequence[str]) -> None:
        self._tracks: Mapping[str, _Track] = {name: _Track() for name in names}
        self._readings = 0

    @property
    def names(self) -> Sequence[str]:
        return list(self._tracks)

    def add(self, reading: Mapping[str, float]) -> None:
        """One reading, every STEP seconds. What is missing in it is not known."""
        for name, track in self._tracks.items():
            track.hour.add(reading.get(name, nan))
        self._readings += 1
        if self._readings % ROLLED == 0:
            for track in self._tracks.values():
                track.roll()

    def hour(self, name: str) -> Course:
        """Raises KeyError."""
        return Course(self._tracks[name].hour.values())

    def week(self, name: str) -> Course:
        """Raises KeyError."""
        track = self._tracks[name]
        return Course(track.means.values(), track.lows.values(), track.highs.values())

    def total(self, name: str) -> float:
        """Of the last hour: for signals that count what happened within a step."""
        return sum(value for value in self._tracks[name].hour.values() if not isnan(value))
