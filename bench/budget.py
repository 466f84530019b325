"""Where the processors' time goes: microseconds of each process for one operation, against the raw loop's.

Time that is used, not time that passes: it depends less on what else the machine does, and says what could be reached
at most. With all processors busy and nobody waiting, N of them do N / (the sum) operations a second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import frames
from bench.daemon import Usage
from bench.result import Result
from bench.stage import Stage

Request = tuple[str, dict[str, object]]

WORKERS: Final = 2
DAEMON: Final = "daemon"
COMMITS: Final = "commits"
SHOWN: Final = 1.0
"""Microseconds below which a part is not worth naming."""


def budget(stage: Stage, works: Mapping[str, tuple[str, Request]]) -> list[Result]:
    """`works`: what to call it, and the request, by the name of its raw loop."""
    return [_budget(stage, raw, work, request) for raw, (work, request) in works.items()]


def _budget(stage: Stage, raw: str, work: str, request: Request) -> Result:
    daemon = stage.daemon(WORKERS)
    parts = {usage.pid: _part(usage) for usage in daemon.usage()}
    load = replace(stage.load, warm=0.0)  # what is not counted would be charged to what is
    spent: dict[str, list[float]] = {}
    plain: list[float] = []
    for _ in range(stage.rounds):
        before = _used(parts)
        measured = load.run(daemon.socket, f"budget-{raw}", [frames.request(*request)], depth=32)
        count = measured.rate * load.seconds
        for part, used in _used(parts).items():
            spent.setdefault(part, []).append((used - before[part]) / count)
        spent.setdefault("client", []).append(measured.client_cpu * 1e6 / count)
        begin = _used({stage.raw.pid: "raw"})["raw"]
        count = stage.raw.rate(raw, stage.seconds) * stage.seconds
        plain.append((_used({stage.raw.pid: "raw"})["raw"] - begin) / count)
    each = {part: min(values) for part, values in spent.items()}  # whoever else uses the machine can only add to it
    total, alone = sum(each.values()), min(plain)
    told = " + ".join(f"{part} {used:,.0f}" for part, used in each.items() if used >= SHOWN)
    return Result(
        f"budget.{raw}",
        f"{work}, {WORKERS} workers: processor time",
        f"{total:,.0f} µs = {told}",
        f"{alone:,.1f} µs raw C",
        (os.cpu_count() or 1) * alone / total,
        "-",
        None,
        "the ratio is what all processors together could do at most, against one of them with the raw loop.",
    )


def _part(usage: Usage) -> str:
    """By what tells them apart: only the daemon has a second thread."""
    if len(os.listdir(f"/proc/{usage.pid}/task")) > 1:
        return DAEMON
    return "workers" if "openk_hsm" in usage.name else "monitor"


def _used(parts: Mapping[int, str]) -> dict[str, float]:
    """Microseconds of processor time by part; the daemon's commit thread is a part of its own."""
    used: dict[str, float] = {}
    for pid, part in parts.items():
        for thread in Path(f"/proc/{pid}/task").iterdir():
            name = part if part != DAEMON or thread.name == str(pid) else COMMITS
            nanoseconds = int((thread / "schedstat").read_text(encoding="ascii").split()[0])
            used[name] = used.get(name, 0.0) + nanoseconds / 1000
    return used
