"""What locked memory costs: the real daemon beside one whose buffers are plain bytearrays, otherwise the same. Both
have their store in memory, where they can: a disk would hide the difference. And what wiping and scrubbing take
of that, by themselves, in this process."""

from __future__ import annotations

import os
import time
from typing import Final

from bench import frames
from bench.daemon import VAULT
from bench.result import Result, at_least, at_most
from bench.stage import Stage
from openk_memory.pool import Pool
from openk_memory.scrub import scrub

LEAST: Final = 0.85
MOST: Final = 20.0
"""Microseconds that wiping and scrubbing of one request may take."""
BATCH: Final = 500
Request = tuple[str, dict[str, object]]


def locked_memory(stage: Stage) -> list[Result]:
    """Small and large messages: leases dominate the one, wiping the other."""
    locked, plain = stage.daemon_in_memory() or stage.daemon(1), stage.plain_daemon()
    results: list[Result] = []
    for size in (256, 16 << 10):
        request: Request = ("key.encrypt", {"key": f"{VAULT}/gcm", "input": os.urandom(size)})
        prepared = [frames.request(*request)]
        name = f"locked-{size}"
        ours, theirs = stage.in_turn(
            lambda: stage.load.run(locked.socket, name, prepared, depth=32).rate,  # noqa: B023 - called at once
            lambda: stage.load.run(plain.socket, f"{name}-plain", prepared, depth=32).rate,  # noqa: B023
        )
        work = f"locked memory: AES-256-GCM {size:,} B, pipelined, cached"
        results.append(at_least(f"locked.{size}", work, ours, theirs, LEAST, ("/s", "/s with plain bytes")))
    return results


def wiping(stage: Stage) -> list[Result]:
    """A request's message and its answer, wiped, and the scrub of registers and stack. The daemon scrubs once for all
    requests since the last pause; here each request pays for one of its own."""
    results: list[Result] = []
    pool = Pool(1 << 20)
    for size in (256, 16 << 10):
        ours, theirs = stage.in_turn(lambda: _wiped(pool, size, stage.seconds), lambda: _dropped(size, stage.seconds))  # noqa: B023
        work = f"wiping and scrubbing: {size:,} B in, {size:,} B out"
        texts = (f"{ours:.1f} µs", f"{theirs:.1f} µs plain bytearrays dropped", f"≤ {MOST:g} µs")
        results.append(at_most(f"wiping.{size}", work, ours, MOST, texts))
    return results


def _wiped(pool: Pool, size: int, seconds: float) -> float:
    """Microseconds, of the fastest batch: the machine's other work is not ours."""
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        taken = 0.0
        for _ in range(BATCH):
            message, answer = pool.lease(size), pool.lease(size)
            begun = time.perf_counter()
            message.release()
            answer.release()
            scrub()
            taken += time.perf_counter() - begun
        best = min(best, taken)
    return best / BATCH * 1e6


def _dropped(size: int, seconds: float) -> float:
    best = float("inf")
    end = time.perf_counter() + seconds / 4
    while time.perf_counter() < end:
        taken = 0.0
        for _ in range(BATCH):
            message, answer = bytearray(size), bytearray(size)
            begun = time.perf_counter()
            del message, answer
            taken += time.perf_counter() - begun
        best = min(best, taken)
    return best / BATCH * 1e6
