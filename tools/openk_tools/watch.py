"""`openk metrics` and `openk alerts`: what the daemon saw of itself, and a program run for each alert.

openkd itself may execute nothing (it is confined), so whoever wants a program run for an alert runs this command:
`openk alerts --follow --hook PROGRAM`, as a user and in a unit of its own (systemd/openk-alerts.service). It also
notices what openkd cannot: that openkd is not there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Final

import click

from openk.wire.methods import METHODS
from openk_tools.commands import Leaf
from openk_tools.failure import Failure, clean
from openk_tools.rendering import cell, rows_of, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.sparkline import shown, sparkline
from openk_tools.values import Answer, Value

MILLION: Final = 1_000_000
WAIT: Final = 20
"""Seconds that the daemon is asked to wait for the next event."""
HOOK_SECONDS: Final = 10.0
"""What a hook program may take; then it is killed, and the next event is served."""
RETRY: Final = 2.0
"""Seconds between two tries to reach the daemon."""
GONE_AFTER: Final = 2
"""Tries in a row that fail before it is told that the daemon is not there."""
_RAISED: Final = 1
_LEAST: Final = 10


def parted(value: Value) -> float | None:
    """Millionths, as the wire has them."""
    return value / MILLION if isinstance(value, int) and not isinstance(value, bool) else None


def all_parted(values: Value) -> list[float | None]:
    return [parted(value) for value in values] if isinstance(values, list) else []


def metrics() -> click.Group:
    text = "The daemon's numbers: all of them as they are, or a few as they were."
    group = click.Group("metrics", help=text, no_args_is_help=True)
    group.add_command(_show())
    group.add_command(_history())
    return group


def _show() -> Leaf:
    def show(context: click.Context) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("system.metrics", {})
        if settings.as_json:
            show_json(answer)
        else:
            click.echo(str(answer.get("text", "")), nl=False)

    return Leaf("metrics show", callback=click.pass_context(show), about=METHODS["system.metrics"].summary)


def _history() -> Leaf:
    def history(context: click.Context, signal: str | None, *, week: bool) -> None:
        settings = context.ensure_object(Settings)
        asked: Answer = {"span": "week" if week else "hour"}
        if signal is not None:
            asked["signal"] = signal
        with Session(settings) as session:
            answer = session.call("system.history", asked)
        if settings.as_json:
            show_json(_in_units(answer))
            return
        rows = rows_of(answer, "signals")
        wide = max((len(cell(row.get("signal"))) for row in rows), default=0)
        room = max(_LEAST, shutil.get_terminal_size((100, 24)).columns - wide - 26)
        lines = [_line(row, room, week=week) for row in rows]
        span = "the last week, 5 min a value" if week else "the last hour, 10 s a value"
        for cells in [("signal", span.ljust(room), "now", "most"), *lines]:
            name, drawn, now, most = cells
            click.echo(f"{name:<{wide}}  {drawn}  {now:>10}  {most:>10}".rstrip())

    return Leaf(
        "metrics history",
        callback=click.pass_context(history),
        about="What the daemon's signals were, without Prometheus: the last hour, or the last week, since its start.",
        params=[
            click.Argument(["signal"], required=False),
            click.Option(["--week"], is_flag=True, help="The last week in steps of 5 minutes."),
        ],
    )


def _line(row: Answer, room: int, *, week: bool) -> tuple[str, str, str, str]:
    name, unit = cell(row.get("signal")), str(row.get("unit", ""))
    values = all_parted(row.get("highs" if week else "values"))
    most = max((value for value in values if value is not None), default=None)
    drawn = sparkline(values, min(room, max(1, len(values)))).rjust(room)
    return name, drawn, shown(parted(row.get("now")), unit, name), shown(most, unit, name)


def _in_units(answer: Answer) -> Answer:
    rows: list[Value] = []
    for row in rows_of(answer, "signals"):
        fixed: Answer = {**row, "now": parted(row.get("now"))}
        fixed |= {name: [*all_parted(row[name])] for name in ("values", "lows", "highs") if name in row}
        rows.append(fixed)
    return {**answer, "signals": rows}


# --- alerts ---


def alerts() -> Leaf:
    def show(context: click.Context, hook: str | None, *, follow: bool) -> None:
        settings = context.ensure_object(Settings)
        if hook is not None and not follow:
            message = "--hook needs --follow."
            raise click.UsageError(message)
        if follow:
            Follower(settings, hook).run()
        with Session(settings) as session:
            answer = session.call("system.alerts", {})
        rows = [_alert(row) for row in rows_of(answer, "alerts")]
        if settings.as_json:
            show_json({"alerts": [*rows]})
        else:
            raised = [row for row in rows if row.get("raised")]
            click.echo(f"{len(raised)} of {len(rows)} alerts are raised")
            columns = ("alert", "severity", "raised", "value", "limit", "text")
            table(columns, [_row(row) for row in (*raised, *(row for row in rows if not row.get("raised")))])
        context.exit(_RAISED if any(row.get("raised") for row in rows) else 0)

    return Leaf(
        "alerts",
        callback=click.pass_context(show),
        about="The alerts that the daemon raises by itself. Exit status 0: none is raised, 1: some are.",
        params=[
            click.Option(["--follow"], is_flag=True, help="Tell each as it is raised or cleared, until interrupted."),
            click.Option(
                ["--hook"],
                metavar="PROGRAM",
                type=click.Path(exists=True, dir_okay=False, executable=True),
                help="With --follow: run it for each, with the event as JSON on its standard input.",
            ),
        ],
    )


def _alert(row: Answer) -> Answer:
    return {**row, **{name: parted(row.get(name)) for name in ("value", "raise_at", "clear_at")}}


def _row(row: Answer) -> list[str]:
    value, limit = row.get("value"), row.get("raise_at")
    return [
        cell(row.get("alert")),
        cell(row.get("severity")),
        cell(row.get("raised")),
        f"{value:.4g}" if isinstance(value, float) else "-",
        f"{limit:g}" if isinstance(limit, float) else "-",
        cell(row.get("text")),
    ]


class Follower:
    """Tells of each event once: to standard output, and to the hook."""

    def __init__(self, settings: Settings, hook: str | None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._hook = hook
        self._sleep = sleep
        self._last: int | None = None
        self._failed = 0

    def run(self) -> None:
        """Until interrupted, or refused for good."""
        with Session(self._settings) as session:
            while True:
                try:
                    self.step(session)
                except Failure as failure:
                    if failure.code.startswith(("policy.", "auth.", "request.")):
                        raise
                    self._miss(failure)
                    self._sleep(RETRY)

    def step(self, session: Session) -> None:
        """One question, and what it brings. Raises Failure."""
        wait = max(1, min(WAIT, int(self._settings.timeout) - 5))
        asked: Answer = {"after": self._last or 0}
        if self._last is not None and not self._failed:
            asked["wait"] = wait
        answer = session.call("system.alerts", asked)
        if self._failed >= GONE_AFTER:
            self._tell(_unreachable(raised=False, text="openkd answers again"))
        self._failed = 0
        last = answer.get("last")
        newest = last if isinstance(last, int) else 0
        if self._last is None:
            for row in rows_of(answer, "alerts"):
                if row.get("raised"):
                    self._tell({**row, "number": newest, "at": row.get("since"), "value": parted(row.get("value"))})
        elif newest < self._last:  # another start of the daemon: its events count from 1 again
            self._last = 0
            return
        else:
            for event in rows_of(answer, "events"):
                self._tell({**event, "value": parted(event.get("value"))})
        self._last = newest

    def _miss(self, failure: Failure) -> None:
        self._failed += 1
        if self._failed == GONE_AFTER:
            self._tell(_unreachable(raised=True, text=f"openkd does not answer: {failure.code}"))

    def _tell(self, event: Answer) -> None:
        kept = ("number", "alert", "severity", "raised", "at", "value", "text")
        told: Answer = {name: event.get(name) for name in kept}
        if self._settings.as_json:
            click.echo(json.dumps(told))
        else:
            at = event.get("at")
            when = time.strftime("%H:%M:%S", time.localtime(at if isinstance(at, int) else None))
            state = "RAISED " if told["raised"] else "cleared"
            click.echo(f"{when}  {state}  {cell(told['severity']):<6}  {cell(told['alert'])}: {cell(told['text'])}")
        if self._hook is not None:
            run_hook(self._hook, told)


def _unreachable(*, raised: bool, text: str) -> Answer:
    at = int(time.time())
    return {
        "number": 0,
        "alert": "unreachable",
        "severity": "page",
        "raised": raised,
        "at": at,
        "value": None,
        "text": text,
    }


def run_hook(program: str, event: Answer) -> None:
    """Run it without a shell, without arguments, with a small environment, for HOOK_SECONDS at most. What goes wrong is
    said, and changes nothing."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "OPENK_ALERT": str(event.get("alert")),
        "OPENK_ALERT_STATE": "raised" if event.get("raised") else "cleared",
        "OPENK_ALERT_SEVERITY": str(event.get("severity")),
    }
    try:
        done = subprocess.run(  # noqa: S603 - the operator named this program; nothing of the event is an argument
            [program], input=json.dumps(event).encode(), env=environment, timeout=HOOK_SECONDS, check=False, stdout=2
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        click.echo(f"openk: the hook failed: {clean(str(error))}", err=True)
    else:
        if done.returncode:
            click.echo(f"openk: the hook ended with status {done.returncode}", err=True)
