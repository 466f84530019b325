"""`openk hsm`: what the transcripts do not show. Measurements end, keep to their request's bounds, and draw on terminals only."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openk.wire.methods import HSM_CHECKS, HSM_OPERATIONS
from tests.support.fake_daemon import Answer, FakeDaemon, Params, Refusal
from tests.unit.tools.answers import ANSWERS
from tests.unit.tools.stage import Ran, run


def openk(daemon: FakeDaemon, *words: str) -> Ran:
    return run(["--socket", str(daemon.path), "hsm", *words])


def with_answers(folder: Path, **answers: Answer) -> FakeDaemon:
    return FakeDaemon(folder / "s", {**ANSWERS, **{f"hsm.{verb}": answer for verb, answer in answers.items()}})


def test_each_check_is_a_request_so_that_a_slow_one_shows_where_it_is(tmp_path: Path) -> None:
    with with_answers(tmp_path) as daemon:
        assert openk(daemon, "selftest", "main").status == 0
        assert [params["check"] for params in daemon.asked("hsm.selftest")] == list(HSM_CHECKS)


def test_a_device_that_goes_away_between_two_checks(tmp_path: Path) -> None:
    left = iter([ANSWERS["hsm.selftest"]] * 2)

    def selftest(params: Params) -> Answer:
        known = next(left, None)
        assert known is None or callable(known)
        return Refusal("hsm.unavailable", retry_after=1.0) if known is None else known(params)

    with with_answers(tmp_path, selftest=selftest) as daemon:  # type: ignore[arg-type]
        ran = openk(daemon, "selftest")
    assert ran.status == 75
    assert len(ran.out.splitlines()) == 2
    assert "hsm.unavailable" in ran.err


def test_a_measurement_is_many_small_requests_and_ends_in_time(tmp_path: Path) -> None:
    def bench(params: Params) -> dict[str, object]:
        time.sleep(int(str(params["milliseconds"])) / 1000)
        return {"hsm": "main", "operation": params["operation"], "times": [500] * 10}

    began = time.monotonic()
    with with_answers(tmp_path, bench=bench) as daemon:
        ran = openk(daemon, "bench", "main", "--seconds", "1.5")
        asked = daemon.asked("hsm.bench")
    assert ran.status == 0
    assert 1.4 < time.monotonic() - began < 4
    assert [line.split()[0] for line in ran.out.decode().splitlines()[1:]] == list(HSM_OPERATIONS)
    assert len(asked) >= 2 * len(HSM_OPERATIONS)
    assert all(0 < int(str(params["milliseconds"])) <= 200 and params["hsm"] == "main" for params in asked)


def test_a_count_is_kept_exactly(tmp_path: Path) -> None:
    with with_answers(tmp_path) as daemon:
        openk(daemon, "bench", "--operation", "random", "--count", "2100", "--seconds", "60")
        counts = [params["count"] for params in daemon.asked("hsm.bench")]
    assert counts == [1000, 1000, 100]


@pytest.mark.parametrize("code", ["hsm.unavailable", "policy.denied"])
def test_a_measurement_that_is_refused_says_why(tmp_path: Path, code: str) -> None:
    with with_answers(tmp_path, bench=Refusal(code)) as daemon:
        ran = openk(daemon, "bench")
    assert ran.status in {75, 77}
    assert code in ran.err
    assert not ran.out


def test_an_older_daemon_without_hsm_methods_is_told(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", {}) as daemon:
        ran = openk(daemon, "list")
    assert ran.status == 2
    assert "request.unknown_method" in ran.err


def on_a_terminal(daemon: FakeDaemon, *words: str) -> str:
    """What a person at a terminal of 100 columns gets to see."""
    shown, slave = pty.openpty()
    command = [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.path), "hsm", *words]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as child:
        os.close(slave)
        output = b""
        while True:
            try:
                part = os.read(shown, 65536)
            except OSError:  # EIO: the child has closed it
                break
            if not part:
                break
            output += part
        assert child.wait(20) == 0, output
    os.close(shown)
    return output.decode()


def test_progress_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    with with_answers(tmp_path) as daemon:
        shown = on_a_terminal(daemon, "bench", "--count", "2000", "--operation", "p-256")
        quiet = openk(daemon, "bench", "--count", "2000", "--operation", "p-256")
    assert "━" in shown
    assert "p-256" in shown.rpartition("━")[2]  # the figures come when the bar has gone
    assert "━" not in quiet.out.decode() + quiet.err


@pytest.mark.parametrize(
    ("together", "member", "status"), [("up", "up", 0), ("up", "diverged", 1), ("down", "down", 69)]
)
def test_a_member_that_fails_does_not_fail_its_group(tmp_path: Path, together: str, member: str, status: int) -> None:
    def row(name: str, state: str, group: str | None) -> dict[str, object]:
        return {"hsm": name, "group": group, "state": state, "workers": 1, "configured": 1, "advice": ""}

    rows = [row("both", together, None), row("north", together, "both"), row("south", member, "both")]
    with with_answers(tmp_path, status={"hsms": rows}) as daemon:
        ran = openk(daemon, "status")
    assert ran.status == status
    assert [line[:7] for line in ran.out.decode().splitlines()] == ["HSM    ", "both   ", "  north", "  south"]


def test_names_of_hsms_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENK_SOCKET", str(tmp_path / "s"))
    monkeypatch.setenv("_OPENK_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "openk hsm status v")
    monkeypatch.setenv("COMP_CWORD", "3")
    command = [sys.executable, "-c", "from openk_tools.cli import make; make()(prog_name='openk')"]
    with with_answers(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.split() == ["plain,vendor"]
