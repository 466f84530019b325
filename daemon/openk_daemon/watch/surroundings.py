"""What openkd stands on besides HSM and store: the disk's free space, the wall clock, the policy files.

The disk is asked in a thread of its own, at most one at a time: a file system that hangs (a network's, a dying disk's)
must not hold the event loop.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from math import nan
from pathlib import Path
from time import monotonic
from typing import Final

import trio

from openk_daemon.observe.health import OK, Finding, State

EVERY: Final = 5.0
"""Seconds between two looks at the disk."""
LIMIT: Final = 2.0
"""Seconds that a look may take before it is told of."""
REMEMBERED: Final = 600.0
"""Seconds for which a step of the clock is told of."""
NOTICED: Final = 0.25
"""Seconds: less is an adjustment, not a step."""
_DAY: Final = 86_400.0


class Disk:
    """The one that holds `folder`."""

    def __init__(self, folder: Path, policies: Path, low: float) -> None:
        """`low`: free share below which it is degraded."""
        self.free_bytes = nan  # not known yet
        self.free_share = nan
        self.policies_changed_at = 0.0
        """Of the newest policy file, Unix seconds."""
        self._folder = folder
        self._policies = policies
        self.low = low
        self._since = 0.0
        self._error = ""
        self._limiter = trio.CapacityLimiter(1)

    async def run(self) -> None:
        while True:
            await self.look()
            await trio.sleep(EVERY)

    async def look(self) -> None:
        self._since = monotonic()
        try:
            found, self.policies_changed_at = await trio.to_thread.run_sync(
                self._ask, abandon_on_cancel=True, limiter=self._limiter
            )
        except (OSError, RuntimeError) as error:  # no thread can be had
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._error = f"the disk that holds the state cannot be asked: {why}"
        else:
            self._error = ""
            self.free_bytes = found.f_bavail * found.f_frsize
            self.free_share = self.free_bytes / max(1, found.f_blocks * found.f_frsize)
        self._since = 0.0

    def _ask(self) -> tuple[os.statvfs_result, float]:
        return os.statvfs(self._folder), newest(self._policies)

    def finding(self) -> Finding:
        waited = monotonic() - self._since if self._since else 0.0
        if waited > LIMIT:
            return Finding(State.DEGRADED, f"the disk that holds the state has not answered for {waited:.0f} s")
        if self._error:
            return Finding(State.DEGRADED, self._error)
        if self.free_share < self.low:
            free = f"{self.free_bytes / (1 << 20):.0f} MiB ({self.free_share:.1%})"
            return Finding(State.DEGRADED, f"{free} of the disk that holds the state are free")
        return OK


def newest(folder: Path) -> float:
    """When the newest file below `folder` was changed, Unix seconds; 0.0 where there is none. Raises OSError."""
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)


class WallClock:
    """Notices when the wall clock is set: it is compared with the one that runs since the boot."""

    def __init__(
        self,
        limit: float,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """`limit`: seconds of a step from which on it is degraded."""
        self.limit = limit
        self._wall = wall
        self._steady = steady
        self._ahead = wall() - steady()
        self._steps: deque[tuple[float, float]] = deque(maxlen=256)

    def look(self) -> None:
        """Once a second."""
        steady = self._steady()
        ahead = self._wall() - steady
        step = ahead - self._ahead
        self._ahead = ahead
        if abs(step) > NOTICED:
            self._steps.append((steady, step))
        while self._steps and steady - self._steps[0][0] > REMEMBERED:
            self._steps.popleft()

    @property
    def step(self) -> float:
        """The largest within the last ten minutes, seconds, without its sign."""
        return max((abs(step) for _, step in self._steps), default=0.0)

    def finding(self) -> Finding:
        if self.step < self.limit:
            return OK
        return Finding(State.DEGRADED, f"the wall clock was set by {self.step:.1f} s within the last ten minutes")


class PolicyAge:
    """How old the set in force is, and whether the files have changed since it was loaded."""

    def __init__(self, disk: Disk, loaded: float, days: float, epoch: Callable[[], int]) -> None:
        """`loaded`: when the newest file of the set in force was changed, Unix seconds. `days`: degraded beyond; 0:
        never. `epoch`: grows with each reload."""
        self._disk = disk
        self._changed = loaded
        self.days = days
        self._epoch = epoch
        self._known = epoch()

    @property
    def age(self) -> float:
        """Seconds since a file of the set in force was changed."""
        return max(0.0, time.time() - self._changed)

    def finding(self) -> Finding:
        if self._epoch() != self._known:
            self._known, self._changed = self._epoch(), max(self._changed, self._disk.policies_changed_at)
        if self._disk.policies_changed_at > self._changed:
            return Finding(State.OK, "the policy files have changed since they were loaded: openk policy reload")
        days = self.age / _DAY
        if self.days and days > self.days:
            return Finding(State.DEGRADED, f"no policy was changed for {days:.0f} days: is it still what is meant?")
        return OK
