"""`openk backup`: make one and see how far it is, and what is kept."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from openk.wire.methods import METHODS
from openk_tools.commands import Leaf
from openk_tools.failure import Failure
from openk_tools.rendering import cell, pairs, rows_of, show_json, table
from openk_tools.session import Session
from openk_tools.settings import Number, Settings
from openk_tools.values import Answer, Value

WAIT: Final = 2
"""Seconds after which it is told how far it is."""
EVERY: Final = 1.0
"""Seconds between two questions."""
_CLEAR: Final = "\r\x1b[K"


def _create() -> Leaf:
    def create(context: click.Context, wait: int | None) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("backup.create", {"wait": WAIT if wait is None else wait})
            if answer.get("state") == "running" and wait is None:
                answer = _followed(session, answer)
        if settings.as_json:
            show_json(answer)
        else:
            pairs(answer)

    return Leaf(
        "backup create",
        callback=click.pass_context(create),
        about="Make a backup of openkd's state now, and wait until it is verified. What was acknowledged before is in "
        "it. While another one is being made this waits for that. It goes where the configuration says "
        "(backup.folder); what is in the HSM is not in it. Put back with `openkd --restore`.",
        params=[
            Number(
                ["--wait"],
                type=click.IntRange(0, 60),
                metavar="N",
                help="Only so many seconds; then `openk backup list` tells how far it is.",
            )
        ],
        answers=METHODS["backup.create"].result,
    )


def _followed(session: Session, begun: Answer) -> Answer:
    """Ask on until that run has ended. Raises Failure, its own among them."""
    terminal = sys.stderr.isatty()
    while True:
        time.sleep(EVERY)
        listed = session.call("backup.list", {})
        running, last = listed.get("running"), listed.get("last")
        if isinstance(running, dict) and running.get("run") == begun.get("run"):
            if terminal:
                click.echo(f"{_CLEAR}{_told(running)}", nl=False, err=True)
            continue
        if terminal:
            click.echo(_CLEAR, nl=False, err=True)
        if not isinstance(last, dict) or last.get("run") != begun.get("run"):
            return {**begun, "state": "ended"}  # the daemon was started anew, or another one has ended since
        if last.get("backup") is None:
            raise Failure("backup.failed", str(last.get("text", "")), details={"reason": last.get("reason")})
        named = (row for row in rows_of(listed, "backups") if row.get("backup") == last["backup"])
        return {"run": begun.get("run"), "state": "made", **next(named, {"backup": last["backup"]})}


def _told(running: Answer) -> str:
    step = cell(running.get("step"))
    return f"{step}, {cell(running.get('percent'))} %" if step == "copying" else step


def _list() -> Leaf:
    def list_backups(context: click.Context) -> None:
        settings = context.ensure_object(Settings)
        with Session(settings) as session:
            answer = session.call("backup.list", {})
        if settings.as_json:
            show_json(answer)
            return
        rows = rows_of(answer, "backups")
        columns = ("backup", "made", "entries", "signed", "bytes")
        table(columns, [[cell(row.get(name)) for name in columns] for row in rows])
        pairs(_rest(answer))

    return Leaf(
        "backup list",
        callback=click.pass_context(list_backups),
        about="The backups that are kept, the oldest first; how far the one is that is being made; what became of the "
        "last.",
        answers=METHODS["backup.list"].result,
    )


def _rest(answer: Answer) -> dict[str, Value]:
    told: dict[str, Value] = {"next": answer.get("next")}
    running, last = answer.get("running"), answer.get("last")
    if isinstance(running, dict):
        told["running"] = _told(running)
    if isinstance(last, dict) and last.get("backup") is None:
        told["last"] = f"failed {cell(last.get('ended'))} ({cell(last.get('reason'))}: {cell(last.get('text'))})"
    return told


COMMANDS: Final = (_create(), _list())
