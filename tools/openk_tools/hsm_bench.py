"""`openk hsm bench`: small measurements, one request after another, so that clients are served in between."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import click

from openk.wire.methods import HSM_OPERATIONS, METHODS
from openk_tools.commands import Leaf
from openk_tools.failure import Failure
from openk_tools.rendering import show_json, table
from openk_tools.session import Session
from openk_tools.settings import Number, Settings
from openk_tools.values import Answer

SECONDS: Final = 2.0
"""For all operations together, when nothing else is asked for."""
_SLICE: Final = 200
"""Milliseconds of one request."""
_MOST: Final = 1000
"""Operations of one request."""
_UNSUPPORTED: Final = "key.unsupported"

Advance = Callable[[str, float], None]
"""Which operation is measured, and which share (0 to 1) of all is done."""


@dataclass(slots=True)
class Figures:
    """`times`: microseconds of each operation; none where `hsm` does not do it."""

    operation: str
    hsm: str = ""
    times: list[int] = field(default_factory=list[int])

    @property
    def per_second(self) -> int:
        return round(1e6 * len(self.times) / max(1, sum(self.times)))

    def percentile(self, share: int) -> int:
        """Microseconds: of `share` in a hundred operations none took longer."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]

    def as_map(self) -> Answer:
        if not self.times:
            return {"operation": self.operation, "supported": False}
        return {
            "operation": self.operation,
            "supported": True,
            "count": len(self.times),
            "per_second": self.per_second,
            "p50": self.percentile(50),
            "p99": self.percentile(99),
        }


def bench(where: click.Argument) -> Leaf:
    """`where`: the argument that names the HSM."""

    def run(
        context: click.Context,
        hsm: str | None,
        operation: tuple[str, ...],
        count: int | None,
        milliseconds: float | None,
    ) -> None:
        settings = context.ensure_object(Settings)
        operations = operation or HSM_OPERATIONS
        seconds = SECONDS if milliseconds is None else milliseconds
        with Session(settings) as session, _progress(settings) as advance:
            figures: list[Figures] = []
            for place, name in enumerate(operations):
                share = seconds / len(operations)
                found = Figures(name)
                for part in _measure(session, hsm, found, count, share):
                    advance(name, (place + part) / len(operations))
                figures.append(found)
        if settings.as_json:
            told = hsm or next((found.hsm for found in figures if found.hsm), None)
            show_json({"hsm": told, "operations": [found.as_map() for found in figures]})
        else:
            _show(figures)

    text = (
        "Measure how fast an HSM is. One operation at a time, from the daemon to the device and back, without policy, "
        "audit and the client's socket. Clients are served in between, and slow the figures down. Several at a time, "
        "and several workers, do more: see bench/."
    )
    params = (
        where,
        click.Option(
            ["--operation"],
            type=click.Choice(HSM_OPERATIONS),
            metavar="OPERATION",
            multiple=True,
            help=f"Only this; may be repeated: {', '.join(HSM_OPERATIONS)}.",
        ),
        Number(["--count"], type=click.IntRange(1), metavar="N", help="At most so many of each."),
        Number(
            ["--seconds", "milliseconds"],
            type=click.FloatRange(0.01, 3600),
            metavar="SECONDS",
            help=f"For all operations together [{SECONDS:g}].",
        ),
    )
    answers = METHODS["hsm.bench"].result
    return Leaf("hsm bench", callback=click.pass_context(run), about=text, params=params, answers=answers)


def _measure(session: Session, hsm: str | None, found: Figures, count: int | None, seconds: float) -> Iterator[float]:
    """Fill `found`; yields which share of it is done. Raises Failure."""
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0 and (count is None or len(found.times) < count):
        wanted = _MOST if count is None else min(_MOST, count - len(found.times))
        params: Answer = {
            "operation": found.operation,
            "count": wanted,
            "milliseconds": min(_SLICE, int(left * 1000) + 1),
        }
        if hsm is not None:
            params["hsm"] = hsm
        try:
            answer = session.call("hsm.bench", params)
        except Failure as failure:
            if failure.code != _UNSUPPORTED:
                raise
            break
        found.hsm = str(answer.get("hsm"))
        times = answer.get("times")
        found.times += [time for time in times if isinstance(time, int)] if isinstance(times, list) else []
        yield min(1.0, max(1 - (end - monotonic()) / seconds, 0.0 if count is None else len(found.times) / count))
    yield 1.0


def _show(figures: Sequence[Figures]) -> None:
    rows: list[list[str]] = []
    for found in figures:
        if found.times:
            times = [f"{found.percentile(share) / 1000:.3g} ms" for share in (50, 99)]
            rows.append([found.operation, f"{found.per_second:,}", *times, f"{len(found.times):,}"])
        else:
            rows.append([found.operation, "not on this HSM", "-", "-", "-"])
    table(("operation", "per second", "p50", "p99", "measured"), rows)


@contextmanager
def _progress(settings: Settings) -> Generator[Advance]:
    """A bar on a terminal, silence elsewhere."""
    if settings.as_json or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield lambda _name, _share: None
        return
    # Imported here: rich costs more start-up time than all the rest of the program.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)
