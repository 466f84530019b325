"""The table of results, and the same as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

from bench.result import Result


def table(results: Sequence[Result]) -> str:
    lines = [("work", "measured", "baseline", "ratio", "goal", "reached")]
    for result in results:
        ratio = "-" if result.ratio is None else f"{result.ratio:.2f}"
        reached = {True: "yes", False: "NO", None: "-"}[result.reached]
        lines.append((result.work, result.measured, result.baseline, ratio, result.goal, reached))
    widths = [max(len(line[at]) for line in lines) for at in range(6)]
    rule = tuple("-" * width for width in widths)
    shown = [
        "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip()
        for line in (lines[0], rule, *lines[1:])
    ]
    notes = [f"{result.work}: {result.note}" for result in results if result.note]
    return "\n".join((*shown, "", *dict.fromkeys(notes))).rstrip()


def save(path: Path, results: Sequence[Result], conditions: dict[str, object]) -> None:
    known = {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **conditions,
    }
    path.write_text(
        json.dumps(
            {"conditions": known, "results": [result.as_map() for result in results]}, indent=2, ensure_ascii=False
        )
        + "\n"
    )
