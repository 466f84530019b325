"""What was read or answered is wiped at the end, however the command ends; and tables on a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openk_tools import material, rendering
from openk_tools.session import Session
from openk_tools.values import Answer
from tests.support.fake_daemon import FakeDaemon, Params, Refusal
from tests.unit.tools.stage import run
from tests.unit.tools.test_outlet import on_a_terminal


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> list[bytearray | memoryview]:
    """Every secret that was read, and every one that was answered."""
    kept: list[bytearray | memoryview] = []
    read, call = material.read, Session.call

    def keep_read(source: str, *, what: str = "input") -> memoryview:
        kept.append(read(source, what=what))
        return kept[-1]

    def keep_call(session: Session, method: str, params: Answer) -> Answer:
        answer = call(session, method, params)
        kept.extend(value for value in answer.values() if isinstance(value, bytearray))
        return answer

    monkeypatch.setattr(material, "read", keep_read)
    monkeypatch.setattr(Session, "call", keep_call)
    return kept


def wiped(buffers: list[bytearray | memoryview]) -> bool:
    assert all(len(buffer) > 0 for buffer in buffers)
    return not any(any(buffer) for buffer in buffers)


def test_input_and_answer_are_wiped(tmp_path: Path, buffers: list[bytearray | memoryview]) -> None:
    def decrypt(params: Params) -> dict[str, object]:
        return {"plaintext": b"hunter2", "version": 1}

    (tmp_path / "sealed").write_bytes(b"sealed")
    with FakeDaemon(tmp_path / "s", {"key.decrypt": decrypt}) as daemon:
        ran = run(["--socket", str(daemon.path), "key", "decrypt", "v/k", "--in", str(tmp_path / "sealed")])
    assert ran.out == b"hunter2"
    assert len(buffers) == 2
    assert wiped(buffers)


def test_input_is_wiped_when_the_daemon_refuses(tmp_path: Path, buffers: list[bytearray | memoryview]) -> None:
    with FakeDaemon(tmp_path / "s", {"secret.put": Refusal("policy.denied")}) as daemon:
        ran = run(["--socket", str(daemon.path), "secret", "put", "v/s"], b"hunter2")
        assert daemon.asked("secret.put") == [{"secret": "v/s", "value": b"hunter2"}]
    assert (ran.status, len(buffers)) == (77, 1)
    assert wiped(buffers)


def test_input_is_wiped_when_the_answer_cannot_be_written(tmp_path: Path, buffers: list[bytearray | memoryview]) -> None:
    with FakeDaemon(tmp_path / "s", {"secret.get": {"value": b"hunter2", "version": 1}}) as daemon:
        ran = run(["--socket", str(daemon.path), "secret", "get", "v/s", "--out", str(tmp_path / "none" / "f")])
    assert (ran.status, len(buffers)) == (74, 1)
    assert wiped(buffers)


def test_all_pages_are_read(tmp_path: Path) -> None:
    names = [f"v/k{number:04}" for number in range(2500)]

    def listed(params: Params) -> dict[str, object]:
        behind = [name for name in names if name > str(params.get("after", ""))]
        return {"keys": [{"key": name} for name in behind[: int(str(params["limit"]))]]}

    with FakeDaemon(tmp_path / "s", {"key.list": listed}) as daemon:
        ran = run(["--socket", str(daemon.path), "key", "list", "v"])
        assert ran.out.decode().split()[1:] == names
        assert len(daemon.asked("key.list")) == 3
        assert (
            run(["--socket", str(daemon.path), "key", "list", "v", "--limit", "5"]).out.decode().split()[1:]
            == names[:5]
        )


def test_a_reader_that_goes_away_is_met_in_silence(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", {"secret.get": {"value": b"x" * 1_000_000, "version": 1}}) as daemon:
        command = [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.path), "secret", "get", "v/s"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(10) == b"x" * 10
        child.stdout.close()
        assert child.stderr.read() == b""
        child.stderr.close()
        assert child.wait(10) == 1


def test_table_on_a_terminal_has_every_cell_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    _, seen = on_a_terminal(lambda: rendering.table(("key", "uses"), [("payments/[bold]card", "17")]))
    assert all(part in seen for part in (b"key", b"uses", b"payments/[bold]card", b"17"))
