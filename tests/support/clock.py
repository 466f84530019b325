"""A clock that moves only when a test moves it: monotonic and wall time together.

    clock = Clock()                          # or the fixture `clock`
    bucket = Bucket(clock=clock)             # what takes a monotonic clock gets it as it is
    hierarchy = Hierarchy(..., clock.wall)
    clock.pass_(3600)
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

BEGAN: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_FIRST: Final = 1000.0


class Clock:
    """`now`: monotonic seconds; a test may set them."""

    def __init__(self) -> None:
        self.now = _FIRST

    def __call__(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return BEGAN + timedelta(seconds=self.now - _FIRST)

    def pass_(self, seconds: float) -> None:
        self.now += seconds
