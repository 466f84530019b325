"""backup.create, backup.list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from openk_daemon.backup.keeper import Backups, Ended, Status
from openk_daemon.backup.seam import Backup
from openk_daemon.call import Answer, Call, Handler, Outcome, Plain
from openk_daemon.refusal import Refusal

PATIENCE: Final = 10
"""Seconds that backup.create waits when it is not told how long."""


class BackupHandlers:
    def __init__(self, backups: Backups | None) -> None:
        """None: no folder is configured."""
        self._backups = backups

    def handlers(self) -> Mapping[str, Handler]:
        return {"backup.create": self.create, "backup.list": self.list}

    async def create(self, call: Call) -> Outcome:
        wait = call.arguments.integer("wait", PATIENCE)
        backups = self._configured()
        status = await backups.create(wait)
        ended = status.ended
        if status.running or ended is None:
            return Outcome(({"run": status.run, "state": "running"},), facts=(("run", status.run),))
        if ended.backup is None:
            raise self._failed(ended)
        answer: Answer = {"run": ended.run, "state": "made", **_shown(ended.backup), "seconds": int(ended.seconds)}
        return Outcome((answer,), facts=(("run", ended.run), ("backup", ended.backup.name)))

    async def list(self, _call: Call) -> Outcome:
        backups = self._configured()
        status = backups.status()
        answer: Answer = {
            "backups": [_shown(backup) for backup in status.backups],
            "next": _rfc3339(status.due),
            "running": _running(status),
            "last": None if status.ended is None else _last(status.ended),
        }
        return Outcome((answer,))

    def _configured(self) -> Backups:
        if self._backups is None:
            raise Refusal("backup.unconfigured")
        return self._backups

    @staticmethod
    def _failed(ended: Ended) -> Refusal:
        failed = ended.failed
        if failed is None:
            return Refusal("backup.failed")
        return Refusal("backup.failed", failed.text, details={"reason": str(failed.reason)})


def _shown(backup: Backup) -> dict[str, Plain]:
    return {
        "backup": backup.name,
        "made": _rfc3339(backup.made),
        "entries": backup.entries,
        "signed": backup.signed,
        "bytes": backup.bytes,
    }


def _running(status: Status) -> Plain:
    if not status.running:
        return None
    return {"run": status.run, "step": status.step, "percent": int(100 * status.share)}


def _last(ended: Ended) -> dict[str, Plain]:
    failed = ended.failed
    return {
        "run": ended.run,
        "ended": _rfc3339(ended.at),
        "backup": None if ended.backup is None else ended.backup.name,
        "reason": None if failed is None else str(failed.reason),
        "text": "" if failed is None else failed.text,
    }


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
