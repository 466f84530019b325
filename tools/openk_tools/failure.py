"""What went wrong, as the user reads it: one sentence, the code, the advice and the exit status of the code table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import click

from openk.wire.codes import CODES, Code

UNREACHABLE: Final = "daemon.unreachable"


@dataclass(eq=False)
class Failure(Exception):
    """A refusal by the daemon, or that none answers. `message` is one sentence; `code` a name of the code table
    (one this table does not know, from a newer daemon, is shown as it came and exits with 70)."""

    code: str
    message: str = ""
    request: str | None = None
    retry_after: float | None = None
    details: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def row(self) -> Code:
        unknown = Code(
            0,
            self.code,
            "The daemon refused.",
            "The daemon is newer than this program: upgrade it.",
            500,
            "UNKNOWN",
            70,
        )
        return CODES.get(self.code, unknown)

    @property
    def sentence(self) -> str:
        return self.message or self.row.meaning

    def as_map(self) -> dict[str, object]:
        known: dict[str, object] = {
            "code": self.code,
            "message": self.sentence,
            "advice": self.row.advice,
            "exit": self.row.exit,
            "retry": self.row.retry,
        }
        if self.request is not None:
            known["request"] = self.request
        if self.retry_after is not None:
            known["retry_after"] = self.retry_after
        if self.details:
            known["details"] = dict(self.details)
        return known


def tell(failure: Failure, *, as_json: bool) -> int:
    """Write `failure` to standard error; returns the exit status."""
    if as_json:
        click.echo(json.dumps({"error": failure.as_map()}, ensure_ascii=False, default=str), err=True)
        return failure.row.exit
    click.echo(f"openk: {clean(failure.sentence)} [{clean(failure.code)}]", err=True)
    for name, value in failure.details.items():
        click.echo(f"  {clean(name)}: {clean(_shown(value))}", err=True)
    advice = failure.row.advice
    if failure.retry_after is not None:
        advice = advice.replace("retry_after", f"{failure.retry_after:g}")
    click.echo(f"  {advice}", err=True)
    if failure.request is not None:
        click.echo(f"  request {clean(failure.request)}", err=True)
    return failure.row.exit


def tell_usage(error: click.ClickException, *, as_json: bool) -> int:
    """The same for a mistake in the command line or in a local file."""
    code = "usage" if isinstance(error, click.UsageError) else "local"
    if as_json:
        known = {"code": code, "message": " ".join(error.format_message().split()), "exit": error.exit_code}
        click.echo(json.dumps({"error": known}, ensure_ascii=False), err=True)
        return error.exit_code
    click.echo(f"openk: {' '.join(error.format_message().split())}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"  See `{error.ctx.command_path} --help`.", err=True)
    return error.exit_code


class _LocalFailure(click.ClickException):
    exit_code = os.EX_IOERR


def tell_system(error: OSError, *, as_json: bool) -> int:
    """A file that could not be written, a full disk, a closed pipe."""
    if isinstance(error, BrokenPipeError):
        # The reader has gone (`openk key list v | head`); nothing more to say, and not at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    name = f"{error.filename}: " if error.filename else ""
    return tell_usage(_LocalFailure(f"{name}{error.strerror or error}"), as_json=as_json)


def _shown(value: object) -> str:
    return ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)


def clean(text: str) -> str:
    """`text` without control characters: what a daemon or another user wrote must not steer the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
