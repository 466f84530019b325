"""Answers as people and as programs read them.

For programs: one JSON object, the answer's fields by their own names; a `bytes` field NAME is `NAME_base64`.
For people: `name: value` lines and tables; on a terminal rich draws them, elsewhere columns are separated by two
blanks and nothing is cut, so that a pipe gets everything.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from openk_tools.failure import clean
from openk_tools.values import Answer, Value

SUFFIX: Final = "_base64"


def jsonable(value: Value) -> Value:
    """`value` with each bytes value turned to text under a name that says so."""
    if isinstance(value, dict):
        changed: Answer = {}
        for name, part in value.items():
            if isinstance(part, bytes | bytearray | memoryview):
                changed[f"{name}{SUFFIX}"] = base64.b64encode(part).decode("ascii")
            else:
                changed[name] = jsonable(part)
        return changed
    if isinstance(value, list):
        return [jsonable(part) for part in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    return value


def from_json(value: Value) -> Value:
    """The inverse of `jsonable`: `NAME_base64` becomes NAME, a bytearray. Raises click.UsageError."""
    if isinstance(value, dict):
        changed: Answer = {}
        for name, part in value.items():
            if name.endswith(SUFFIX) and isinstance(part, str):
                try:
                    changed[name.removesuffix(SUFFIX)] = bytearray(base64.b64decode(part, validate=True))
                except binascii.Error:
                    message = f"{name} is not base64."
                    raise click.UsageError(message) from None
            else:
                changed[name] = from_json(part)
        return changed
    if isinstance(value, list):
        return [from_json(part) for part in value]
    return value


def rows_of(answer: Answer, name: str) -> list[Answer]:
    """A list of maps in `answer`; what is none is left out."""
    value = answer.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def show_json(answer: Answer) -> None:
    click.echo(json.dumps(jsonable(answer), indent=2, ensure_ascii=False, default=str))


def show(answer: Answer) -> None:
    """All of `answer` for a person: single values first, then each list as a table, each map as its lines."""
    single = {name: value for name, value in answer.items() if not isinstance(value, dict | list)}
    pairs(single)
    nested = [(name, value) for name, value in answer.items() if name not in single]
    alone = len(nested) == 1 and not single
    for name, value in nested:
        if not alone:
            click.echo(f"{name}:" if value else f"{name}: none")
        if isinstance(value, dict):
            pairs(value, indent="" if alone else "  ")
        elif isinstance(value, list):
            listing(value, indent="" if alone else "  ")


def pairs(known: Mapping[str, Value], indent: str = "") -> None:
    width = max((len(clean(name)) for name in known), default=0) + 1
    for name, value in known.items():
        if isinstance(value, dict) and value:
            click.echo(f"{indent}{clean(name)}:")
            pairs(value, indent + "  ")
        elif isinstance(value, str) and "\n" in value:
            click.echo(f"{indent}{clean(name)}:")
            for line in value.splitlines():
                click.echo(f"{indent}  {clean(line)}")
        else:
            click.echo(f"{indent}{clean(name) + ':':<{width}} {cell(value)}")


def listing(values: Sequence[Value], indent: str = "") -> None:
    """Maps as a table, anything else one a line."""
    maps = [value for value in values if isinstance(value, dict)]
    if not values and not indent:
        click.echo("(none)", err=True)  # for a person; a pipe gets nothing
    if len(maps) != len(values) or not maps:
        for value in values:
            click.echo(f"{indent}{cell(value)}")
        return
    columns = list(dict.fromkeys(name for value in maps for name in value))
    table(columns, [[cell(value.get(name)) for name in columns] for value in maps], indent)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> None:
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        _rich_table(columns, rows)
        return
    titles = [name.upper() for name in columns]
    widths = [max(len(line[at]) for line in (titles, *rows)) for at in range(len(columns))]
    for line in (titles, *rows):
        text = "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True))
        click.echo(f"{indent}{text.rstrip()}")


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Imported here: rich costs more start-up time than all the rest of the program.
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(part) for part in row))
    Console().print(drawn)


def cell(value: Value) -> str:
    """One value on one line."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case str():
            return clean(value)
        case list():
            return ", ".join(cell(part) for part in value) or "-"
        case dict():
            return ", ".join(f"{clean(name)}={cell(part)}" for name, part in value.items()) or "-"
        case _:
            return str(value)
