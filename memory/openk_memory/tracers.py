"""Who traces this process, by both ways of knowing: the kernel is asked (TracerPid), and it tells (`ptrace_events`).

Asked, it knows who traces the main thread now. It tells of each that attached, to any thread, however short it stayed,
where it tells at all. So both stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openk_memory.hardening import tracer
from openk_memory.ptrace_events import PtraceEvents


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look showed that the one before did not."""

    tracers: tuple[int, ...]
    """Process ids of those that attached; they may have gone again."""
    gone: bool
    """Whoever was there at the last look has gone, and nobody came."""
    lost: bool
    """More attached than could be told of."""


class Tracers:
    """A tracer that stays is shown once. Not for threads."""

    def __init__(self, find: Callable[[], int] = tracer) -> None:
        self.events = PtraceEvents()
        """Silent unless subscribed."""
        self._find = find
        self._known = 0

    def forget(self) -> None:
        """Who is there counts as new at the next look."""
        self._known = 0

    def look(self) -> Sight:
        """Takes 50 microseconds."""
        heard = self.events.read()
        found = self._find()
        fresh = [pid for pid in heard.tracers if pid != self._known]
        if found not in (0, self._known, *fresh):
            fresh.append(found)
        gone = bool(self._known) and not found and not fresh
        self._known = found
        return Sight(tuple(fresh), gone, heard.lost)
