"""`openk audit` beyond its methods: follow the log, copy it out, verify a copy."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from openk.wire.methods import METHODS
from openk_tools import audit_verify, outlet
from openk_tools.audit_export import export as copy_log
from openk_tools.commands import Leaf
from openk_tools.failure import Failure
from openk_tools.outlet import Way
from openk_tools.rendering import cell, pairs, show_json, table
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
                _show(rows)
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
        click.Option(
            ["--follow", "-f"],
            is_flag=True,
            help="Go on and print each new entry (each look is one, too); Ctrl-C ends it.",
        ),
    )
    entries = METHODS["audit.tail"].result
    return Leaf(
        "audit tail", callback=click.pass_context(tail), about="Read audit entries.", params=params, answers=entries
    )


def _rows(answer: Answer) -> Iterator[tuple[int, Answer]]:
    """Index and parsed entry; an entry that is no JSON object is kept as text."""
    entries = answer.get("entries")
    for row in entries if isinstance(entries, list) else ():
        if not isinstance(row, dict) or not isinstance(index := row.get("index"), int):
            continue
        text = str(row.get("entry"))
        try:
            entry: Value = json.loads(text)
        except (ValueError, RecursionError):
            entry = text
        yield index, entry if isinstance(entry, dict) else {"entry": text}


def _show(rows: list[tuple[int, Answer]]) -> None:
    """A column for each member the entries have; the digests of what was written are for `--json`."""
    columns = list(dict.fromkeys(name for _, entry in rows for name in entry if name != "writes"))
    table(("index", *columns), [(str(index), *(cell(entry.get(name)) for name in columns)) for index, entry in rows])


def _line(index: int, entry: Answer) -> str:
    return "  ".join((str(index), *(cell(value) for name, value in entry.items() if name != "writes")))


def _export() -> Leaf:
    def export(context: click.Context, folder: str, key: str | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            head = copy_log(session, Path(folder))
        public = head.get("public")
        if key is not None and isinstance(public, bytes):
            outlet.save(key, _pem(public), secret=False, way=Way())
        facts: Answer = {"folder": folder, "size": head.get("signed_size"), "public": public}
        if settings.as_json:
            show_json(facts)
        else:
            pairs(facts)

    text = (
        "Copy the log under its newest signature into a new folder, to be kept or verified elsewhere. "
        "Keep the audit key apart from it: a log and a key from one hand prove nothing."
    )
    params = (
        click.Argument(["folder"], type=click.Path(file_okay=False)),
        click.Option(
            ["--key"], metavar="FILE", type=click.Path(dir_okay=False), help="Write the audit key there (PEM)."
        ),
    )
    return Leaf("audit export", callback=click.pass_context(export), about=text, params=params)


def _verify() -> Leaf:
    def verify(
        context: click.Context,
        folder: str | None,
        public_key: str | None,
        origin: str | None,
        old_checkpoint: str | None,
        receipt: str | None,
    ) -> None:
        settings = context.ensure_object(Settings)
        if folder is None and receipt is None:
            message = "Name the folder of the log, or give --receipt, or both."
            raise click.UsageError(message)
        given = [] if folder is None else [folder]
        given.append(f"--public-key={public_key or _ask_for_key(settings)}")
        for option, value in (("origin", origin), ("old-checkpoint", old_checkpoint), ("receipt", receipt)):
            if value is not None:
                given.append(f"--{option}={value}")
        if settings.as_json:
            given.append("--json")
        context.exit(audit_verify.main(given))

    text = (
        "Verify a log: each entry, each hash, the signature. This runs audit_verify.py, a single file that needs "
        "nothing of openk: others can run it, too. Exit status 0: verified, 1: not, 2: it cannot be told."
    )
    readable = click.Path(exists=True, dir_okay=False)
    key = "The audit key, or a file with it; without it the daemon is asked, and trusted."
    params = (
        click.Argument(["folder"], required=False, type=click.Path()),
        click.Option(["--public-key"], metavar="FILE|BASE64", help=key),
        click.Option(["--origin"], metavar="NAME", help="The log's name, as its checkpoints must have it."),
        click.Option(
            ["--old-checkpoint"], metavar="FILE", type=readable, help="Prove that the log only grew since it."
        ),
        click.Option(["--receipt"], metavar="FILE", type=readable, help="An entry with its inclusion proof, as JSON."),
    )
    return Leaf("audit verify", callback=click.pass_context(verify), about=text, params=params)


def _ask_for_key(settings: Settings) -> str:
    with Session(settings) as session:
        public = session.call("audit.head", {}).get("public")
    if not isinstance(public, bytes):
        raise Failure("daemon.unintelligible")
    return base64.b64encode(public).decode("ascii")


def _pem(public: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(public) + b"-----END PUBLIC KEY-----\n"


COMMANDS: Final = (_tail(), _export(), _verify())
