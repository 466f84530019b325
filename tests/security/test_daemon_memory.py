"""The real daemon and its worker, frozen after work with secrets: none of them is anywhere outside locked memory, nor
in the state folder, nor in the log.

That the search finds what is there is shown by tests/security/test_scan_finds_leaks.py, and here by names, which are
no secrets to the daemon's memory: they must be found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest

from tests.support.backlog import backlog
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template, with_backups
from tests.support.scan import Hit, scan, unlocked
from tests.support.secret_work import WORK, Canaries, Line, furnish, in_files

__all__ = ["template"]


@pytest.fixture(scope="module")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(with_backups(copy_template(template, tmp_path_factory.mktemp("memory") / "dev"))) as running:
        line = Line(running.socket)
        furnish(line)
        line.close()
        yield running


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_no_secret_is_outside_locked_memory(daemon: RunningDaemon, work: Callable[[Line, Canaries], None]) -> None:
    canaries = Canaries()
    line = Line(daemon.socket)
    work(line, canaries)
    line.close()
    sleep(0.3)  # idle: replies are sent, groups committed
    found = {name: leaks(pid, canaries.needles) for name, pid in daemon.pids.items()}
    assert found == {"openkd": [], "hsm-0": []}
    assert in_files(daemon, canaries.needles) == []


def test_the_pin_is_never_in_the_daemon(daemon: RunningDaemon) -> None:
    pin = (daemon.folder / "pin").read_bytes().strip()
    assert scan(daemon.pids["openkd"], [pin]) == []
    assert leaks(daemon.pids["hsm-0"], [pin]) == []
    assert in_files(daemon, [pin]) == []


def test_what_is_no_secret_is_found(daemon: RunningDaemon) -> None:
    """The search works on this very process and these very files."""
    name = f"n{os.urandom(12).hex()}"
    line = Line(daemon.socket)
    line.ask("vault.create", vault=name)
    assert unlocked(scan(daemon.pids["openkd"], [name.encode()]))
    line.ask("audit.head")
    assert in_files(daemon, [name.encode()])
    line.close()


def leaks(pid: int, needles: list[bytes]) -> list[Hit]:
    return [hit for hit in unlocked(scan(pid, needles)) if not hit.in_registers] + backlog(pid, needles)
