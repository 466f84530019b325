"""What locked memory costs: the real daemon beside one whose buffers are plain bytearrays, otherwise the same. Both
have their store in memory, where they can: a disk would hide the difference."""

from __future__ import annotations

import os
from typing import Final

from bench import frames
from bench.daemon import VAULT
from bench.result import Result, at_least
from bench.stage import Stage

LEAST: Final = 0.85
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
