"""Three staged failures, each told the same way by everything that tells: the client's error, health, /readyz, the log, the
metrics and the alert; and each told to be over. docs/operations.md walks through them.

    the HSM is gone    its worker is stopped (it hangs), then killed and not started again
    the disk is full   the state's file system, down to what the audit log holds in reserve
    audit is stuck     the disk does not answer: commits hang
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import openk
from openk_tools.exposition import Exposition
from tests.support.daemon import RunningDaemon, copy_template, running_daemon

WITHIN = 20.0
STUCK = Path(__file__).parents[2] / "support" / "stuck_openkd.py"
QUICK = """\
[metrics]
socket = "{folder}/metrics.sock"
[log]
format = "json"
[health]
probe_seconds = 1
probe_limit_seconds = 1
disk_free_share = 0
[alerts]
clear_seconds = 0
[alerts.hsm_down]
for_seconds = 1
[alerts.audit_refusing]
for_seconds = 0
[alerts.store_failing]
for_seconds = 0
"""


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


@dataclass
class Watched:
    daemon: RunningDaemon

    def get(self, target: str) -> tuple[int, str]:
        connection = UnixHttp(self.daemon.folder / "metrics.sock")
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @property
    def metrics(self) -> Exposition:
        return Exposition(self.get("/metrics")[1])

    def ready(self) -> str:
        status, text = self.get("/readyz")
        return f"{status} {text}"

    def alert(self, name: str) -> float:
        return self.metrics.value("openk_alert", alert=name)

    def lines(self, event: str) -> list[dict[str, object]]:
        """Of the daemon's log."""
        return [json.loads(line) for line in self.daemon.log.splitlines() if f'"event": "{event}"' in line]

    def told(self, event: str, **facts: str) -> bool:
        return any(all(line.get(name) == value for name, value in facts.items()) for line in self.lines(event))


def until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < end, f"not within {WITHIN} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def watched(template: Path, tmp_path: Path) -> Iterator[Watched]:
    folder = copy_template(template, tmp_path / "d")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "quick.toml").write_text(QUICK.format(folder=folder))
    with running_daemon(folder) as daemon:
        yield Watched(daemon)


def code_of(ask: Callable[[], object]) -> str:
    try:
        ask()
    except openk.Error as error:
        return error.code
    return "ok"


def test_a_hung_hsm_is_told_of_at_once_and_found_by_round_trips(watched: Watched) -> None:
    daemon = watched.daemon
    with daemon.client() as client:
        client.system.health()
        daemon.signal(signal.SIGSTOP, "hsm-0")
        try:
            until("round trip", lambda: "hsm-round-trip: failed" in watched.ready())
            # It hangs for as long as this test says: whoever waited for it would not be answered. `python -m bench` has
            # the time (watched.hung).
            health = client.system.health()
            assert health.status == "failed"
            assert "has not answered a round trip for" in str(health.components["hsm-round-trip"])
            assert watched.ready().startswith("503 failed\n")
            until("alert", lambda: watched.alert("hsm_slow") == 1)
            assert watched.metrics.value("openk_hsm_probe_seconds") > 1
            until("log", lambda: watched.told("alert.raised", alert="hsm_slow", severity="page"))
        finally:
            daemon.signal(signal.SIGCONT, "hsm-0")
        until("well", lambda: watched.ready().startswith("200 ok"))
        until("cleared", lambda: watched.told("alert.cleared", alert="hsm_slow"))


def test_the_hsm_is_gone(template: Path, tmp_path: Path) -> None:
    """Its worker's socket leads nowhere: the monitor starts it again and again, and nobody reaches it."""
    folder = copy_template(template, tmp_path / "d")
    (folder / "conf.d").mkdir()
    gone = QUICK.format(folder=folder) + "[hsm.dev]\nbreaker_seconds = 1\n"
    (folder / "conf.d" / "quick.toml").write_text(gone)
    with running_daemon(folder) as daemon, daemon.client() as client:
        watched = Watched(daemon)
        client.vault.create("v")
        client.key.create("v/k", "hmac-sha-256")
        module = folder / "softhsm2.conf"
        kept = module.read_text()
        module.write_text(kept.replace("/tokens", "/elsewhere"))
        daemon.signal(signal.SIGKILL, "hsm-0")
        try:
            until("client", lambda: code_of(lambda: client.key.mac("v/k", b"x")).startswith("hsm."))
            until("ready", lambda: watched.ready().startswith("503 failed"))
            assert "hsm: failed: lane dev is" in watched.ready()
            until("alert", lambda: watched.alert("hsm_down") == 1)
            assert watched.metrics.value("openk_hsm_up", lane="dev") == 0
            assert watched.told("alert.raised", alert="hsm_down", severity="page")
            until("log", lambda: watched.told("health.changed", status="failed"))
            assert next(alert.alert for alert in client.system.alerts().alerts if alert.raised) == "hsm_down"
            events = client.system.events().events
            assert [event.text for event in events if event.kind == "health.changed" and event.text.startswith("failed: hsm")]
            assert ("alert.raised", "hsm_down", "page") in {(event.kind, event.subject, event.severity) for event in events}
        finally:
            module.write_text(kept)
        until("well", lambda: watched.ready().startswith("200"))
        until("works", lambda: code_of(lambda: client.key.mac("v/k", b"x")) == "ok")
        until("cleared", lambda: watched.told("alert.cleared", alert="hsm_down"))
        assert ("alert.cleared", "hsm_down") in {(event.kind, event.subject) for event in client.system.events().events}


def fill(folder: Path, free: int) -> Path:
    """Take the disk under `folder` down to so many free bytes; the file that does it."""
    ballast = folder / "ballast"
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - free)
    return ballast


def test_the_disk_is_full(template: Path, tmp_path: Path) -> None:
    """The state lies in a memory file system that this test fills: no root is needed, and no disk is worn."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="openk-") as memory:
        folder = copy_template(template, tmp_path / "d")
        (folder / "conf.d").mkdir()
        state = Path(memory) / "state"
        state.mkdir(mode=0o700)
        found = os.statvfs(memory)
        reserve = found.f_bavail * found.f_frsize - (48 << 20)
        full = QUICK.format(folder=folder).replace("[metrics]", f'state = "{state}"\n[metrics]', 1)
        (folder / "conf.d" / "quick.toml").write_text(full + f"[audit]\nreserve_bytes = {reserve}\n")
        with running_daemon(folder) as daemon, daemon.client() as client:
            watched = Watched(daemon)
            client.vault.create("v")
            ballast = fill(state, reserve - (16 << 20))
            try:
                until("client", lambda: code_of(client.random.bytes) == "audit.unavailable")
                until("ready", lambda: watched.ready().startswith("503 failed"))
                assert "audit: failed:" in watched.ready()
                assert "bytes are free where the audit log is kept" in watched.ready()
                until("alert", lambda: watched.alert("audit_refusing") == 1)
                assert watched.metrics.value("openk_audit_refusing") == 1
                assert watched.metrics.value("openk_requests_total", code="audit.unavailable") >= 1
                assert watched.told("alert.raised", alert="audit_refusing", severity="page")
                until("log", lambda: watched.told("health.changed", status="failed"))
                assert "no request is admitted" in daemon.log
            finally:
                ballast.unlink()
            until("works", lambda: code_of(client.random.bytes) == "ok")
            until("well", lambda: watched.ready().startswith("200"))
            until("cleared", lambda: watched.told("alert.cleared", alert="audit_refusing"))
            assert any("audit.paused" in entry.entry for entry in client.audit.tail(0, limit=100))


def test_audit_is_stuck(template: Path, tmp_path: Path) -> None:
    folder = copy_template(template, tmp_path / "d")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "quick.toml").write_text(QUICK.format(folder=folder))
    with running_daemon(folder, program=(str(STUCK),)) as daemon, daemon.client(timeout=2) as client:
        watched = Watched(daemon)
        client.vault.create("v")
        flag = folder / "state" / "stuck"
        flag.touch()
        try:
            # What the disk has begun is answered when the disk says what became of it; what comes after is refused.
            codes = [code_of(client.random.bytes) for _ in range(3)]
            assert codes[0] == "daemon.timeout"
            assert set(codes[1:]) <= {"store.unavailable", "audit.unavailable"}
            shown = subprocess.run(
                [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.socket), "health"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (shown.returncode, shown.stdout.splitlines()[0]) == (69, "status: failed"), shown
            until("ready", lambda: watched.ready().startswith("503 failed"))
            assert "store: failed: commits fail (store.unavailable)" in watched.ready()
            assert "audit: failed: the store cannot commit" in watched.ready()
            until("alert", lambda: watched.alert("store_failing") == 1 and watched.alert("audit_refusing") == 1)
            assert watched.told("alert.raised", alert="store_failing", severity="page")
            until("log", lambda: watched.told("health.changed", status="failed"))
            assert "the disk has not answered for 1 seconds" in daemon.log
        finally:
            flag.unlink()
        until("works", lambda: code_of(client.random.bytes) == "ok")
        until("well", lambda: watched.ready().startswith("200"))
        until("cleared", lambda: watched.told("alert.cleared", alert="store_failing"))
