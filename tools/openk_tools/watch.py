"""`openk metrics` and `openk alerts`: what the daemon saw of itself."""

from __future__ import annotations

import shutil
from typing import Final

import click

from openk.wire.methods import METHODS
from openk_tools.commands import Leaf
from openk_tools.following import AlertFollower, all_parted, parted
from openk_tools.rendering import cell, rows_of, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.sparkline import shown, sparkline
from openk_tools.values import Answer, Value

_RAISED: Final = 1
_LEAST: Final = 10


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
            AlertFollower(settings, hook).follow()
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
