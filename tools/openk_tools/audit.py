"""`openk audit` beyond its methods: follow the log, copy it out, verify a copy."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Final

import click

from openk.wire.methods import METHODS
from openk_tools.commands import Leaf
from openk_tools.rendering import cell, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.values import Answer, Value

PAGE: Final = 1000
INTERVAL: Final = 1.0
"""Seconds between two looks at a log that is followed."""


def _tail() -> Leaf:
    def tail(context: click.Context, first: int | None, limit: int | None, *, follow: bool) -> None:
        settings = context.ensure_object(Settings)
        asked: Answer = {name: value for name, value in (("first", first), ("limit", limit)) if value is not None}
        with Session(settings) as session:
            answer = session.call("audit.tail", asked)
            rows = list(_rows(answer))
            if settings.as_json and not follow:
                show_json({"entries": [{"index": index, **entry} for index, entry in rows]})
                return
            if not follow:
                table(("index", *_COLUMNS), [(str(index), *_brief(entry)) for index, entry in rows])
                return
            while True:
                for index, entry in rows:
                    click.echo(json.dumps({"index": index, **entry}) if settings.as_json else _line(index, entry))
                behind = rows[-1][0] + 1 if rows else asked.get("first", 0)
                asked = {"first": behind, "limit": PAGE}
                time.sleep(INTERVAL)
                rows = list(_rows(session.call("audit.tail", asked)))

    params = (
        click.Option(
            ["--first"], type=click.IntRange(0), metavar="N", help="From this index; the newest ones when left out."
        ),
        click.Option(["--limit"], type=click.IntRange(1, PAGE), metavar="N", help="At most so many."),
        click.Option(["--follow", "-f"], is_flag=True, help="Go on and print each new entry; Ctrl-C ends it."),
    )
    entries = METHODS["audit.tail"].result
    return Leaf(
        "audit tail", callback=click.pass_context(tail), about="Read audit entries.", params=params, answers=entries
    )


_COLUMNS: Final = ("time", "caller", "method", "target", "outcome")


def _rows(answer: Answer) -> Iterator[tuple[int, Answer]]:
    """Index and parsed entry; an entry that is no JSON object is kept as text."""
    entries = answer.get("entries")
    for row in entries if isinstance(entries, list) else ():
        if not isinstance(row, dict) or not isinstance(index := row.get("index"), int):
            continue
        text = str(row.get("entry"))
        try:
            entry: Value = json.loads(text)
        except ValueError:
            entry = text
        yield index, entry if isinstance(entry, dict) else {"entry": text}


def _brief(entry: Answer) -> list[str]:
    return [cell(entry.get(name)) for name in _COLUMNS]


def _line(index: int, entry: Answer) -> str:
    return "  ".join((str(index), *_brief(entry)))


COMMANDS: Final = (_tail(),)
