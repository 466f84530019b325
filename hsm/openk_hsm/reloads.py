"""How often a worker may load its module anew because the device is in trouble: a token bucket, kept across processes.

Loading a module anew is the cure for most troubles of a device, and a burden for one that is only slow to come back. So
a few reloads may follow one another at once; after that there is one every few seconds, for as long as it takes: no
operator has to start anything again. Workers of one token share the bucket, a file beside the PIN's latch:

    {"level": reloads that are left, below zero while some wait, "at": CLOCK_MONOTONIC of that, "spent": in all}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from openk_hsm.marks import mark_path

_MOST: Final = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Pace:
    """`burst` reloads may follow one another at once; another is added every `seconds`."""

    burst: int = 10
    seconds: float = 3.0


class Reloads:
    """`folder` and `uri` as for the latch. `clock` does not go back while the machine runs."""

    def __init__(self, folder: Path, uri: str, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = mark_path(folder, uri, "reloads")
        self._pace = pace
        self._clock = clock

    def take(self) -> float:
        """Take one; the seconds to wait before it. Where the file cannot be written, always `Pace.seconds`."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return self._pace.seconds
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            level, spent = self._level(os.pread(descriptor, _MOST, 0))
            record = json.dumps({"level": level - 1, "at": self._clock(), "spent": spent + 1}).encode()
            os.pwrite(descriptor, record, 0)
            os.ftruncate(descriptor, len(record))
        except OSError:
            return self._pace.seconds
        finally:
            os.close(descriptor)
        return max(0.0, (1 - level) * self._pace.seconds)

    def _level(self, text: bytes) -> tuple[float, int]:
        """What is left now, and what was taken so far; a full bucket where the file is new, damaged or from before the
        machine started."""
        burst = self._pace.burst
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            found = cast("dict[str, float]", json.loads(text))
            level, at, spent = float(found["level"]), float(found["at"]), int(found["spent"])
            passed = self._clock() - at
            if passed >= 0 and level <= burst:
                return min(float(burst), max(level, -float(burst)) + passed / self._pace.seconds), spent
        return float(burst), 0
