"""Results of backup.*"""

from __future__ import annotations

from dataclasses import dataclass

from openk.answers import Answer


@dataclass(frozen=True, slots=True)
class Backup:
    """`made`: RFC 3339; what was acknowledged before is in it. `signed` of its audit `entries` are under the signed
    head in it. `bytes`: of its store."""

    backup: str
    made: str
    entries: int
    signed: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BackupRun:
    """`run`: its number since the daemon's start. `state`: made or running; while it runs the rest is None. `backup`:
    its name; `seconds`: what it took."""

    run: int
    state: str
    backup: str | None
    made: str | None
    entries: int | None
    signed: int | None
    bytes: int | None
    seconds: int | None


@dataclass(frozen=True, slots=True)
class Backups:
    """The oldest first. `next`: RFC 3339. `running`: run, step, percent; `last`: run, ended, backup, reason, text."""

    backups: list[Backup]
    next: str
    running: Answer | None
    last: Answer | None
