"""`openk alerts`, `openk metrics history`, `openk top`: what is drawn, what a hook gets, and that a terminal is left as
it was."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_tools import following
from openk_tools.exposition import Exposition, quantile
from openk_tools.failure import Failure
from openk_tools.following import AlertFollower, run_hook
from openk_tools.session import Session
from openk_tools.settings import Settings
from openk_tools.sparkline import seconds, shown, sparkline
from tests.support.fake_daemon import FakeDaemon, Refusal
from tests.unit.tools.answers import ANSWERS
from tests.unit.tools.stage import Ran, run

METRICS = """\
# TYPE openk_requests_total counter
openk_requests_total{method="key.sign",code="ok"} 90
openk_requests_total{method="key.sign",code="policy.denied"} 10
openk_request_seconds_bucket{class="key",method="key.sign",le="0.001"} 50
openk_request_seconds_bucket{class="key",method="key.sign",le="+Inf"} 100
openk_hsm_up{lane="main"} 1
openk_hsm_workers{lane="main"} 2
"""
HEALTH = {"status": "degraded", "components": {"disk": {"state": "degraded", "reason": "little is free"}}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    answers = {**ANSWERS, "system.metrics": {"text": METRICS}, "system.health": HEALTH}
    answers["system.info"] = {"info": {"version": "9.9", "uptime_seconds": 7300}}
    with FakeDaemon(tmp_path / "s", answers) as running:
        yield running


def openk(daemon: FakeDaemon, *words: str) -> Ran:
    return run(["--socket", str(daemon.path), *words])


def test_history_as_lines(daemon: FakeDaemon) -> None:
    lines = openk(daemon, "metrics", "history").out.decode().splitlines()
    assert lines[0].split()[:4] == ["signal", "the", "last", "hour,"]
    assert lines[1].split() == ["requests_per_second", "▁▄█", "120/s", "120/s"]
    assert lines[2].split() == ["disk_free_share", "█", "50.0%", "50.0%"]
    week = openk(daemon, "metrics", "history", "--week", "requests_per_second").out.decode().splitlines()
    assert week[1].split() == ["requests_per_second", "▁▂█", "120/s", "240/s"]
    assert daemon.asked("system.history")[-1] == {"span": "week", "signal": "requests_per_second"}


def test_history_for_programs_is_in_units(daemon: FakeDaemon) -> None:
    [row] = json.loads(openk(daemon, "metrics", "history", "requests_per_second", "--json").out)["signals"]
    assert (row["now"], row["values"]) == (120.0, [None, 0.0, 60.0, 120.0])


def test_alerts_raised_come_first_and_make_the_exit_status(daemon: FakeDaemon) -> None:
    ran = openk(daemon, "alerts")
    lines = ran.out.decode().splitlines()
    assert ran.status == 1
    assert lines[0] == "1 of 2 alerts are raised"
    assert lines[2].split() == ["hsm_down", "page", "yes", "1", "1", "1", "HSMs", "do", "not", "serve"]
    assert json.loads(openk(daemon, "alerts", "--json").out)["alerts"][1]["raise_at"] == 1.0


def test_a_hook_needs_to_follow(daemon: FakeDaemon) -> None:
    assert openk(daemon, "alerts", "--hook", "/bin/true").status == 2


def script(folder: Path, text: str) -> str:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_each_event_is_told_once_to_the_hook_and_over_a_restart(tmp_path: Path) -> None:
    out = tmp_path / "told"
    hook = script(tmp_path, f'{{ read -r line; printf %s "$line"; echo " $OPENK_ALERT $OPENK_ALERT_STATE $#"; env | grep -c SECRET; }} >> {out}')
    begun = ANSWERS["system.alerts"]
    assert callable(begun)
    well = {"alerts": [], "cursor": "00000002:1"}
    tables = iter([begun({}), well, well])
    sealed = {
        "number": 2, "kind": "alert.raised", "at": 5, "severity": "page", "subject": "sealed", "value": 1_000_000, "text": "t",
    }  # fmt: skip
    health = {**sealed, "number": 3, "kind": "health.changed", "subject": ""}
    slow = {**sealed, "number": 1, "subject": "slow"}
    streams = iter([
        batch("0a1b2c3d:3", sealed, health), Refusal("daemon.stopping"), Refusal("daemon.stopping"),
        batch("00000002:1", slow, restarted=True), batch("00000002:9", lost=7),
    ])  # fmt: skip

    os.environ["SECRET"] = "s"  # not handed on to a program
    answers = {"system.alerts": lambda _: next(tables), "system.events": lambda _: next(streams)}
    try:
        with FakeDaemon(tmp_path / "s", answers) as daemon:  # type: ignore[arg-type]
            follower = AlertFollower(Settings(socket=str(daemon.path)), hook, lambda _: None)
            with Session(Settings(socket=str(daemon.path))) as session:
                for _ in range(6):
                    try:
                        follower.step(session, wait=7)
                    except Failure as failure:
                        follower.miss(failure)
            asked = daemon.asked("system.events")
    finally:
        del os.environ["SECRET"]
    told = out.read_text().splitlines()
    words = [line.rpartition("}")[2].split() for line in told[::2]]
    assert words == [
        ["hsm_down", "raised", "0"], ["sealed", "raised", "0"], ["unreachable", "raised", "0"], ["unreachable", "cleared", "0"],
        ["slow", "raised", "0"], ["hsm_down", "cleared", "0"], ["sealed", "cleared", "0"], ["slow", "cleared", "0"],
    ]  # fmt: skip
    assert set(told[1::2]) == {"0"}
    assert json.loads(told[2].rpartition("}")[0] + "}")["value"] == 1.0
    first, then, new = "0a1b2c3d:1", "0a1b2c3d:3", "00000002:1"
    assert [params["after"] for params in asked] == [first, then, then, then, new]
    assert {params["wait"] for params in asked} == {7}


def batch(cursor: str, *events: dict[str, object], lost: int = 0, restarted: bool = False) -> dict[str, object]:
    return {"events": list(events), "cursor": cursor, "lost": lost, "restarted": restarted}


def test_events_as_lines_and_for_programs(daemon: FakeDaemon) -> None:
    ran = openk(daemon, "events")
    assert ran.out.decode().splitlines()[0].split()[2:] == [
        "page", "alert.raised", "hsm_down:", "1", "HSMs", "do", "not", "serve",
    ]  # fmt: skip
    assert "go on with --after 0a1b2c3d:1" in ran.err
    assert openk(daemon, "events", "--after", "0a1b2c3d:1").out == b""
    assert json.loads(openk(daemon, "events", "--json").out)["value"] == 1.0


def test_a_hook_that_fails_or_hangs_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "HOOK_SECONDS", 0.2)
    run_hook(script(tmp_path, "exit 3"), {"alert": "sealed", "raised": True})
    run_hook(script(tmp_path, "exec sleep 60"), {"alert": "sealed", "raised": True})
    run_hook(str(tmp_path / "none"), {"alert": "sealed", "raised": True})
    said = capfd.readouterr().err
    assert "status 3" in said
    assert "timed out" in said
    assert said.count("the hook failed") == 2


def test_top_once(daemon: FakeDaemon) -> None:
    shown = openk(daemon, "top", "--once", "--interval", "0.2").out.decode()
    for words in (
        "openkd 9.9",
        "up 2 h 1 min",
        "degraded",
        "ALERT hsm_down",
        "disk degraded: little is free",
        "key.sign",
        "main",
    ):
        assert words in shown
    assert openk(daemon, "top").out.decode().count("openk top") == 1  # no terminal: once


def test_top_without_a_daemon_says_so_as_any_command(tmp_path: Path) -> None:
    ran = run(["--socket", str(tmp_path / "none"), "top", "--once", "--interval", "0.2"])
    assert (ran.status, ran.out) == (69, b"")


def test_top_on_a_terminal_redraws_and_leaves_it_as_it_was(daemon: FakeDaemon) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.path), "top", "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    try:
        seen = _read(ours, until=lambda: len(daemon.asked("system.metrics")) > 2)
        os.write(ours, b"q")
        seen += _read(ours, until=lambda: child.poll() is not None)
        assert child.wait(10) == 0
    finally:
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
    assert b"\x1b[?1049h" in seen
    assert b"\x1b[?1049l" in seen.partition(b"\x1b[?1049h")[2]
    assert b"ALERT hsm_down" in seen
    assert b"requests_per_second" in seen
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def _read(terminal: int, until: object) -> bytes:
    assert callable(until)
    seen = b""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        while select.select([terminal], [], [], 0.05)[0]:
            seen += os.read(terminal, 65536)
        if until():
            break
    return seen


def test_an_exposition_is_read_with_its_labels() -> None:
    found = Exposition(METRICS + 'x{a="q\\"}",b="}"} +Inf\nbroken{ 1\n')
    assert found.value("openk_requests_total", method="key.sign") == 100
    assert found.value("openk_requests_total", code="ok") == 90
    assert found.all("x")[0].labels == {"a": 'q\\"}', "b": "}"}
    assert quantile(found.buckets("openk_request_seconds", method="key.sign"), {}, 0.5) == 0.001
    assert quantile(found.buckets("openk_request_seconds", method="key.none"), {}, 0.5) is None


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=200), st.integers(0, 80))
def test_a_sparkline_fills_its_width_and_shows_the_greatest(values: list[float | None], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == (width if values else 0)
    known = [value for value in values if value is not None]
    if width and known and max(known) > 0:
        assert "█" in line
    if not known:
        assert not line.strip()


def test_numbers_as_people_read_them() -> None:
    assert [seconds(value) for value in (None, float("inf"), 2.5, 0.0123, 0.000061)] == [
        "-",
        "> 16 s",
        "2.5 s",
        "12.3 ms",
        "61 µs",
    ]
    assert [shown(1.5 * (1 << 20), "B"), shown(20_000, "1/s"), shown(0.25, "", "cpu_share")] == [
        "1.5 MiB",
        "20k/s",
        "25.0%",
    ]
