"""The seal on the real daemon: closed by an operator or by a sign of tampering, closed after a restart, open again only
with a login of the worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import openk
from openk.errors import Error
from openk.wire.codes import CODES
from tests.support.daemon import copy_template, running_daemon, template
from tests.support.tracing import traced

__all__ = ["template"]


def code_of(act: Callable[[], object]) -> str:
    """The code it is refused with; empty where it is not."""
    try:
        act()
    except Error as error:
        return error.code
    return ""


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(Error) as caught:
        act()
    return caught.value.code


def until(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def furnish(client: openk.Client) -> bytes:
    client.vault.create("v")
    client.key.create("v/cached", "aes-256-gcm", protection="cached")
    client.key.create("v/wrapped", "hmac-sha-256")
    client.secret.put("v/one", b"a secret")
    return client.key.encrypt("v/cached", b"plain").ciphertext


def uses(client: openk.Client, sealed: bytes) -> list[Callable[[], object]]:
    return [
        lambda: client.key.decrypt("v/cached", sealed),
        lambda: client.key.mac("v/wrapped", b"m"),
        lambda: client.secret.get("v/one"),
        lambda: client.secret.put("v/two", b"another"),
        lambda: client.key.create("v/new", "aes-256-gcm"),
        lambda: client.key.describe("v/cached"),
        lambda: client.vault.create("w"),
        client.vault.list,
        client.random.bytes,
    ]


def logged_out(client: openk.Client) -> bool:
    reason = client.system.health().components["seal"]
    return isinstance(reason, dict) and "1 of 1" in str(reason["reason"])


def test_sealed_until_an_operator_unseals(template: Path, tmp_path: Path) -> None:
    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon, daemon.client() as client:
        sealed = furnish(client)
        before = daemon.pids["hsm-0"]
        assert client.system.seal("an exercise").sealed
        assert [refused(act) for act in uses(client, sealed)] == ["daemon.sealed"] * 9
        assert client.system.health().status == "failed"
        until(lambda: logged_out(client), "the worker does not say that it is logged out")
        until(lambda: daemon.pids["hsm-0"] != before, "the worker that knew the login has not ended")
        assert client.system.seal().sealed  # again: nothing
        state = client.system.unseal()
        assert (state.sealed, state.hsms) == (False, ["dev"])
        assert bytes(client.key.decrypt("v/cached", sealed).plaintext) == b"plain"
        assert client.secret.get("v/one").value == b"a secret"
        assert client.system.unseal().hsms == []  # it is open
        assert client.system.health().status == "ok"
        entries = [json.loads(entry.entry) for entry in client.audit.tail(limit=1000)]
        told = [
            (each["method"], each["outcome"], each.get("reason"))
            for each in entries
            if "seal" in each.get("method", "")
        ]
        assert told[0] == ("system.seal", "ok", "an exercise")
        assert ("system.unseal", "ok", None) in told


def test_from_the_command_line(template: Path, tmp_path: Path) -> None:
    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon, daemon.client() as client:
        furnish(client)

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.socket), *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert run("seal", "--reason", "an exercise").returncode == 0
        refused_there = run("secret", "get", "v/one")
        assert refused_there.returncode == CODES["daemon.sealed"].exit
        assert "openk unseal" in refused_there.stderr
        assert run("health").returncode == 69
        assert run("unseal").returncode == 0
        assert run("secret", "get", "v/one").stdout == "a secret"


def test_a_restart_does_not_unseal(template: Path, tmp_path: Path) -> None:
    folder = copy_template(template, tmp_path / "dev")
    with running_daemon(folder) as daemon, daemon.client() as client:
        sealed = furnish(client)
        client.system.seal()
        daemon.signal(signal.SIGKILL)
        daemon.wait_for("openkd ready:", times=2)
        assert refused(lambda: client.key.decrypt("v/cached", sealed)) == "daemon.sealed"
    with running_daemon(folder) as daemon, daemon.client() as client:
        assert refused(lambda: client.secret.get("v/one")) == "daemon.sealed"
        assert client.audit.tail(limit=1)  # what happened can be read all the while
        client.system.unseal()
        assert client.secret.get("v/one").value == b"a secret"
        assert client.audit.head().signed_size
    with running_daemon(folder) as daemon, daemon.client() as client:
        assert client.secret.get("v/one").value == b"a secret"


def test_a_wrong_pin_leaves_it_sealed(template: Path, tmp_path: Path) -> None:
    """The PIN comes from the worker's own source, at each login."""
    folder = copy_template(template, tmp_path / "dev")
    pin = (folder / "pin").read_bytes()
    with running_daemon(folder) as daemon, daemon.client() as client:
        furnish(client)
        client.system.seal()
        (folder / "pin").write_bytes(b"")
        assert refused(client.system.unseal) == "hsm.pin"
        assert refused(lambda: client.secret.get("v/one")) == "daemon.sealed"
        (folder / "pin").write_bytes(pin)
        client.system.unseal()
        assert client.secret.get("v/one").value == b"a secret"


def test_only_whom_policy_allows(template: Path, tmp_path: Path) -> None:
    folder = copy_template(template, tmp_path / "dev")
    with running_daemon(folder) as daemon, daemon.client() as client:
        forbid = '@id("no-unseal")\nforbid (principal, action == Action::"system.unseal", resource);\n'
        (folder / "policies" / "50-no-unseal.cedar").write_text(forbid)
        client.policy.reload()
        client.system.seal()
        assert refused(client.system.unseal) == "policy.denied"
        (folder / "policies" / "50-no-unseal.cedar").unlink()
        client.policy.reload()
        client.system.unseal()


def test_what_was_done_is_answered_and_what_is_under_way_is_refused(template: Path, tmp_path: Path) -> None:
    """The worker stands still, so that what is under way stays that until the seal."""
    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon, daemon.client() as client:
        furnish(client)

        def macs() -> list[str]:
            with client.pipeline() as many:
                futures = [many.key.mac("v/wrapped", b"m%d" % number) for number in range(30)]
            return [code_of(future.result) for future in futures]

        def under_way() -> int:
            [hsm] = client.hsm.status()
            return hsm.queued + hsm.in_flight

        assert macs() == [""] * 30
        daemon.signal(signal.SIGSTOP, "hsm-0")
        with ThreadPoolExecutor(1) as pool:
            refused_then = pool.submit(macs)
            until(lambda: under_way() >= 30, "they are not at the HSM")
            assert client.system.seal().sealed
            assert refused_then.result(15) == ["daemon.sealed"] * 30
        daemon.signal(signal.SIGCONT, "hsm-0")
        until(lambda: logged_out(client), "the worker does not say that it is logged out")
        client.system.unseal()
        assert macs() == [""] * 30


@pytest.mark.parametrize("reaction", ["log", "seal", "exit"])
def test_a_tracer_of_the_daemon(template: Path, tmp_path: Path, reaction: str) -> None:
    folder = copy_template(template, tmp_path / "dev")
    with running_daemon(folder, options=("--on-tracer", reaction)) as daemon:
        with daemon.client() as client:
            furnish(client)
        with traced(daemon.pids["openkd"]):
            daemon.wait_for("tamper.traced")
            if reaction == "exit":
                daemon.wait_for("hardening.on_tracer is exit")
        if reaction == "exit":  # its parent hears of it once the tracer has gone
            daemon.expected_status = 78
            assert daemon.process.wait(20) == 78
            return
        with daemon.client() as client:
            if reaction == "seal":
                until(lambda: code_of(lambda: client.secret.get("v/one")) == "daemon.sealed", "it did not seal itself")
                client.system.unseal()
            assert client.secret.get("v/one").value == b"a secret"
            entries = [json.loads(entry.entry) for entry in client.audit.tail(limit=1000)]
            assert any(each.get("event") == "tamper.traced" for each in entries)


def test_it_is_not_unsealed_before_the_eyes_of_a_tracer(template: Path, tmp_path: Path) -> None:
    folder = copy_template(template, tmp_path / "dev")
    with running_daemon(folder, options=("--on-tracer", "seal")) as daemon, daemon.client() as client:
        furnish(client)
        with traced(daemon.pids["openkd"]):
            until(lambda: code_of(lambda: client.secret.get("v/one")) == "daemon.sealed", "it did not seal itself")
            with pytest.raises(Error, match="traces openkd and would see every key: end it, then unseal") as caught:
                client.system.unseal()
            assert caught.value.code == "daemon.sealed"
        until(lambda: code_of(client.system.unseal) == "", "it stays sealed")
        assert client.secret.get("v/one").value == b"a secret"


@pytest.mark.parametrize("reaction", ["log", "seal"])
def test_a_tracer_of_the_worker(template: Path, tmp_path: Path, reaction: str) -> None:
    folder = copy_template(template, tmp_path / "dev")
    with running_daemon(folder, options=("--on-tracer", reaction)) as daemon, daemon.client() as client:
        furnish(client)
        with traced(daemon.pids["hsm-0"]):
            daemon.wait_for("a process traces this worker")
        if reaction == "seal":
            until(
                lambda: code_of(lambda: client.secret.get("v/one")) == "daemon.sealed", "the daemon did not seal itself"
            )
            until(lambda: logged_out(client), "the worker does not say that it is logged out")
            client.system.unseal()
        assert client.secret.get("v/one").value == b"a secret"
