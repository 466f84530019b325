"""A daemon's life: it starts, is told to reload, drains and stops; with and without a service manager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import openk
from tests.support.daemon import make_template, running_daemon
from tests.support.frames import Raw, request
from tests.support.tokens import URI, worker

DENIAL = '@id("not-today")\nforbid (principal, action == Action::"key.encrypt", resource);\n'


def test_a_daemon_starts_answers_stops_and_comes_back_as_it_was(dev_folder: Path) -> None:
    with running_daemon(dev_folder, workers=2) as daemon, daemon.client() as client:
        assert client.system.health().status == "ok"
        client.vault.create("life")
        client.key.create("life/key", "aes-256-gcm")
        sealed = client.key.encrypt("life/key", b"kept").ciphertext
        size = client.audit.head().size
    assert not (dev_folder / "pids.json").exists()
    assert not (dev_folder / "openkd.sock").exists()
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert bytes(client.key.decrypt("life/key", sealed).plaintext) == b"kept"
        assert client.audit.head().size > size
        assert "recovered" not in daemon.log


def test_sigterm_lets_requests_in_flight_be_answered(dev_folder: Path) -> None:
    """RSA keys take the worker long enough to be found at it by the signal; a busy machine has a minute for them."""
    (dev_folder / "conf.d").mkdir()
    (dev_folder / "conf.d" / "drain.toml").write_text("[limits]\ndrain_seconds = 60\n")
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        client.vault.create("life")
        raw = Raw(str(daemon.socket), 60)
        for number in range(3):
            raw.send(request("key.create", {"key": f"life/rsa-{number}", "algorithm": "rsa-2048"}, number))
        until = time.monotonic() + 10
        while _gauge(client, "openk_hsm_in_flight{") == 0 and time.monotonic() < until:
            continue
        daemon.process.terminate()
        answers = raw.answers()
        raw.close()
        assert {number: answers[number][2] for number in answers} == dict.fromkeys(range(3))
        daemon.stop()
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert len(client.key.list("life")) == 3


def _gauge(client: openk.Client, name: str) -> float:
    lines = client.system.metrics().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_sighup_loads_policies_all_or_nothing(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        client.vault.create("life")
        client.key.create("life/key", "aes-256-gcm")
        mine = dev_folder / "policies" / "50-mine.cedar"
        mine.write_text(DENIAL)
        daemon.process.send_signal(signal.SIGHUP)  # the monitor passes it on
        daemon.wait_for("policy.reloaded")
        assert _code(client) == "policy.denied"

        mine.write_text("forbid (principal, action == nonsense")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("policy.kept")
        assert "50-mine.cedar" in daemon.log
        assert _code(client) == "policy.denied"
        with pytest.raises(openk.Error) as refused:
            client.policy.reload()
        assert refused.value.code == "policy.invalid"
        assert "50-mine.cedar" in str(refused.value.details)

        mine.write_text('forbid (principal, action == Action::"policy.reload", resource);\n')
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("policy.kept", times=2)
        assert "policy.lockout" in daemon.log
        mine.unlink()
        assert client.policy.reload().epoch
        assert _code(client) == "ok"
        entries = " ".join(entry.entry for entry in client.audit.tail(limit=50))
        for outcome in ("ok", "policy.invalid", "policy.lockout"):
            assert f'"event":"policy.reload","by":"SIGHUP","outcome":"{outcome}"' in entries


def _code(client: openk.Client) -> str:
    try:
        client.key.encrypt("life/key", b"")
    except openk.Error as error:
        return error.code
    return "ok"


def test_a_worker_that_died_is_replaced_and_nobody_notices(tmp_path: Path) -> None:
    """On a token that no other daemon uses: that would be told as degraded."""
    with running_daemon(make_template(tmp_path / "dev")) as daemon, daemon.client() as client:
        client.vault.create("life")
        client.key.create("life/key", "aes-256-gcm")
        daemon.signal(signal.SIGKILL, "hsm-0")
        assert _code(client) == "ok"
        daemon.wait_for('"child ended"')
        until = time.monotonic() + 30  # a round trip that the death fell into may be told of as slow while it lasts
        while (health := client.system.health()).status != "ok":
            assert time.monotonic() < until, health
            time.sleep(0.05)


# --- under a service manager ---

LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="openkd")
os.execv(sys.executable, [sys.executable, "-m", "openk_daemon", "--config", sys.argv[2]])
"""
"""What systemd does for a .socket: the socket is descriptor 3 of the process whose id is in LISTEN_PID."""


@contextmanager
def managed(folder: Path) -> Generator[tuple[subprocess.Popen[bytes], socket.socket, Path]]:
    """openkd by --config, with a worker started by hand, on a socket opened by its starter, and the starter's ear."""
    (folder / "state").mkdir(mode=0o700)
    policies = Path(__file__).parents[2] / "policies"
    config = folder / "openkd.toml"
    config.write_text(
        f'state = "{folder}/state"\npolicies = "{policies}"\nadministrators = [{os.getuid()}]\nuser = "root"\n'
        f'[hsm.main]\nsockets = ["{folder}/hsm.sock"]\n[socket]\npath = "{folder}/unused.sock"\n'
    )
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    log_file = folder / "openkd.log"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_UNIX) as listener,
        worker(URI, folder / "hsm.sock", folder / "pin", environment),
        log_file.open("wb") as log,
    ):
        ear.bind(str(folder / "notify.sock"))
        ear.settimeout(20)
        listener.bind(str(folder / "activated.sock"))
        listener.listen()
        command = [sys.executable, "-c", LAUNCHER, str(listener.fileno()), str(config)]
        told = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify.sock"), "WATCHDOG_USEC": "400000"}
        process = subprocess.Popen(command, env=told, pass_fds=[listener.fileno()], stdout=log, stderr=log)
        try:
            yield process, ear, log_file
        finally:
            process.kill()
            process.wait()


def hear(ear: socket.socket, word: str) -> str:
    while word not in (heard := ear.recv(4096).decode()):
        continue
    return heard


def test_under_a_service_manager(dev_folder: Path) -> None:
    with managed(dev_folder) as (process, ear, log):
        with openk.Client(dev_folder / "activated.sock", timeout=20) as client:
            assert client.system.ping(b"early") == b"early"  # asked before it was ready: the backlog kept it
            hear(ear, "READY=1")
            for _ in range(2):
                hear(ear, "WATCHDOG=1")
            process.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in hear(ear, "RELOADING=1")
            hear(ear, "READY=1")
            assert client.system.health().status == "ok"
        process.terminate()
        hear(ear, "STOPPING=1")
        assert process.wait(20) == 0
        assert (dev_folder / "activated.sock").exists()  # it is the service manager's
        assert not (dev_folder / "unused.sock").exists()
        assert "Traceback" not in log.read_text()
