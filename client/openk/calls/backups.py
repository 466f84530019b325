"""backup.*"""

from __future__ import annotations

from openk.answers import Reply
from openk.operation import Operation, operate
from openk.results import Backup, BackupRun, Backups


def create(wait: int | None = None) -> Operation[BackupRun]:
    """Make one now, or join the one that is being made. `wait`: seconds (10 when left out), less than the client's own
    patience; then `backup` is None, and `list` tells how far it is."""
    return operate("backup.create", _run, wait=wait)


def list_backups() -> Operation[Backups]:
    """What is kept, what is being made, and what became of the last."""
    return operate("backup.list", _list)


def _run(reply: Reply) -> BackupRun:
    return BackupRun(
        reply.integer("run"),
        reply.text("state"),
        reply.optional_text("backup"),
        reply.optional_text("made"),
        *(reply.optional_integer(name) for name in ("entries", "signed", "bytes", "seconds")),
    )


def _list(reply: Reply) -> Backups:
    running = reply.map("running") if reply.has("running") else None
    last = reply.map("last") if reply.has("last") else None
    return Backups([_backup(row) for row in reply.replies("backups")], reply.text("next"), running, last)


def _backup(reply: Reply) -> Backup:
    return Backup(
        reply.text("backup"),
        reply.text("made"),
        reply.integer("entries"),
        reply.integer("signed"),
        reply.integer("bytes"),
    )
