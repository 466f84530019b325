"""An event that repeats is written a few times and then counted: no client can fill a log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST: Final = 20
"""Lines of one event within SECONDS; more are counted, not written."""
SECONDS: Final = 10.0


@dataclass(slots=True)
class _Window:
    since: float
    written: int = 0
    suppressed: int = 0

    def over(self, now: float) -> bool:
        return not 0 <= now - self.since < SECONDS


class Repeats:
    """By event. Names come from code, so there are finitely many. `now`: seconds of any clock, always the same."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def admit(self, event: str, now: float) -> int | None:
        """How many lines of this event were suppressed before this one; None if this one is, too."""
        window = self._windows.get(event)
        if window is None:
            window = self._windows[event] = _Window(now)
        if window.over(now):
            window.since = now
            window.written = 0
        if window.written >= MOST:
            window.suppressed += 1
            return None
        window.written += 1
        suppressed, window.suppressed = window.suppressed, 0
        return suppressed

    def silent(self, now: float) -> Iterator[tuple[str, int]]:
        """Events that have fallen silent, and how many lines of each were kept back: no next line would say so."""
        for event, window in self._windows.items():
            if window.suppressed and window.over(now):
                suppressed, window.suppressed = window.suppressed, 0
                yield event, suppressed
