"""`openk backup create` while it takes long: how it ends, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from openk_tools import backup
from tests.support.fake_daemon import Answer, FakeDaemon
from tests.unit.tools.answers import BACKUP
from tests.unit.tools.stage import Ran, run

RUNNING: Answer = {"backups": [], "next": "", "running": {"run": 3, "step": "copying", "percent": 43}, "last": None}


def ended(**last: object) -> Answer:
    told = {"run": 3, "ended": "", "backup": BACKUP["backup"], "reason": None, "text": "", **last}
    return {"backups": [BACKUP], "next": "", "running": None, "last": told}


def create(folder: Path, *listed: Answer) -> tuple[Ran, int]:
    """What the command says when backup.list answers these, one after the other; and how often it was asked."""
    left = list(listed)
    answers = {"backup.create": {"run": 3, "state": "running"}, "backup.list": lambda _params: left.pop(0)}
    with FakeDaemon(folder / "s", answers) as daemon:  # type: ignore[arg-type]
        ran = run(["--socket", str(daemon.path), "backup", "create", "--json"])
        return ran, len(daemon.asked("backup.list"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "EVERY", 0.0)


def test_it_is_followed_to_its_end(tmp_path: Path) -> None:
    ran, asked = create(tmp_path, RUNNING, RUNNING, ended())
    assert (ran.status, asked) == (0, 3)
    assert b'"state": "made"' in ran.out
    assert str(BACKUP["backup"]).encode() in ran.out


def test_its_failure_is_the_commands(tmp_path: Path) -> None:
    ran, _ = create(tmp_path, RUNNING, ended(backup=None, reason="space", text="7 bytes are free"))
    assert ran.status == 74
    assert "backup.failed" in ran.err
    assert "7 bytes are free" in ran.err


def test_another_one_that_ended_since_is_not_taken_for_it(tmp_path: Path) -> None:
    ran, _ = create(tmp_path, ended(run=4))
    assert ran.status == 0
    assert b'"state": "ended"' in ran.out


def test_a_daemon_that_was_started_anew_is_not_waited_for(tmp_path: Path) -> None:
    nothing: Answer = {"backups": [], "next": "", "running": None, "last": None}
    ran, asked = create(tmp_path, nothing)
    assert (ran.status, asked) == (0, 1)

