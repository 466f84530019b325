"""`openk hsm` as an operator types it, against the real daemon, its workers and SoftHSM2; and what was done behind openk's
back is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import openk
from openk.errors import PolicyFault, VaultFault
from openk.wire.methods import HSM_CHECKS, HSM_OPERATIONS
from tests.e2e.test_command_line import Shell
from tests.support.daemon import RunningDaemon, running_daemon, start_daemon
from tests.support.tokens import MODULE
from tests.support.yubihsm import emulated, initialise

BEHIND_OUR_BACK = """
import sys, pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass
module, pin, deed, label = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="openk-dev")
with token.open(rw=True, user_pin=open(pin).read().strip()) as session:
    if deed == "make":
        session.generate_key(KeyType.AES, 256, label=label, id=b"1", store=True)
    else:
        for found in list(session.get_objects({Attribute.LABEL: label})):
            found.destroy()
"""


def behind_our_back(folder: Path, deed: str, label: str) -> None:
    """Somebody else with the PIN."""
    command = [sys.executable, "-c", BEHIND_OUR_BACK, MODULE, str(folder / "pin"), deed, label]
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    subprocess.run(command, env=environment, check=True, timeout=20)


@pytest.fixture
def shell(daemon: RunningDaemon, tmp_path: Path) -> Shell:
    return Shell(daemon, tmp_path)


@pytest.fixture
def own(dev_folder: Path) -> Iterator[RunningDaemon]:
    with running_daemon(dev_folder, workers=2) as running:
        yield running


def test_a_new_user_looks_around(shell: Shell) -> None:
    (row,) = _rows(shell.json("hsm", "list"), "hsms")
    assert (row["hsm"], row["state"], row["workers"], row["label"]) == ("dev", "up", 1, "openk-dev")
    listed = shell.text("hsm", "list")
    assert all(str(row[name]) in listed for name in ("hsm", "state", "backend", "label", "model", "serial", "firmware"))
    assert "1 of 1" in shell.text("hsm", "status")
    info = shell.text("hsm", "info", "dev")
    assert "AES-KWP" in info
    assert "RSA_OAEP_SHA_256" in info.partition("missing:")[2].splitlines()[0]
    assert ["ed25519", "sign", "yes", "no", "yes"] in [line.split() for line in info.splitlines()]


def test_the_selftest_passes_and_leaves_nothing(shell: Shell) -> None:
    before = _labels(shell)
    lines = shell.text("hsm", "selftest").splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [[check, "ok"] for check in HSM_CHECKS]
    assert lines[-1] == "dev: 10 checks passed"
    whole = shell.json("hsm", "selftest")
    assert whole["passed"] is True
    assert _labels(shell) == before


def test_the_objects_have_their_owners(shell: Shell) -> None:
    shell.text("vault", "create", "hsm-objects")
    shell.text("key", "create", "hsm-objects/signer", "--algorithm", "p-256", "--protection", "resident")
    shell.text("key", "rotate", "hsm-objects/signer")
    mine = [row for row in _rows(shell.json("hsm", "objects"), "objects") if row["name"] == "hsm-objects/signer"]
    assert sorted((row["version"], row["kind"], row["state"]) for row in mine) == [
        (version, kind, "ok") for version in (1, 2) for kind in ("private", "public")
    ]
    assert {row["algorithm"] for row in mine} == {"p-256"}
    assert "all are known and there" in shell.text("hsm", "objects")


def test_what_happens_behind_our_back_is_told(own: RunningDaemon, tmp_path: Path) -> None:
    shell = Shell(own, tmp_path)
    shell.text("vault", "create", "v")
    shell.text("key", "create", "v/gone", "--algorithm", "p-256", "--protection", "resident")
    (label,) = {row["label"] for row in _rows(shell.json("hsm", "objects"), "objects") if row["name"] == "v/gone"}
    behind_our_back(own.folder, "make", "somebody's")
    behind_our_back(own.folder, "destroy", str(label))
    told = shell.run("hsm", "objects", status=1).stdout.decode()
    rows = [line.split()[:3] for line in told.splitlines()]
    assert ["unknown", "none", "-"] in rows
    assert ["missing", "key", "v/gone"] in rows
    assert "1 unknown: " in told
    assert "1 missing: " in told
    assert json.loads(shell.run("hsm", "objects", "--json", status=1).stdout)["missing"] == 1


def test_measurements_end_in_time_and_let_others_through(shell: Shell, daemon: RunningDaemon) -> None:
    """Others wait for one measured operation or a few, not for all of them: by count, for how long a second is worth
    depends on what else the machine does."""
    environment = {**os.environ, "OPENK_SOCKET": str(daemon.socket)}
    command = [sys.executable, "-m", "openk_tools.cli", "hsm", "bench", "--seconds", "1.5", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as measuring:
        answered, began = 0, time.monotonic()
        with daemon.client() as client:
            while measuring.poll() is None:
                assert time.monotonic() - began < 60, "it does not end"
                client.random.bytes()
                answered += 1
        assert measuring.stdout is not None
        operations = json.loads(measuring.stdout.read())["operations"]
    assert [row["operation"] for row in operations] == list(HSM_OPERATIONS)
    assert all(row["supported"] and row["count"] > 10 and row["p50"] <= row["p99"] for row in operations)
    measured = sum(row["count"] for row in operations)
    assert answered > measured / 100
    assert "p-256" in shell.text("hsm", "bench", "dev", "--operation", "p-256", "--count", "20")


def test_a_token_that_does_not_vouch_for_keys_says_so(shell: Shell) -> None:
    shell.text("vault", "create", "hsm-attest")
    shell.text("key", "create", "hsm-attest/signer", "--algorithm", "p-256", "--protection", "resident")
    shell.text("key", "create", "hsm-attest/file", "--algorithm", "aes-256-gcm")
    assert b"does not vouch for p-256 keys" in shell.run("hsm", "attest", "hsm-attest/signer", status=65).stderr
    assert b"hsm-attest/file is wrapped" in shell.run("hsm", "attest", "hsm-attest/file", status=65).stderr
    assert b"key.unknown" in shell.run("hsm", "attest", "hsm-attest/none", status=66).stderr


def test_a_yubihsm_tells_of_itself_and_vouches_for_its_keys(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    folder.mkdir(mode=0o700)
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True)
        initialise(device, folder)
        (folder / "token-uri").write_text(device.uri() + "\n")
        with running_daemon(folder) as running:
            shell = Shell(running, tmp_path)
            shell.text("vault", "create", "pay")
            shell.text("key", "create", "pay/signer", "--algorithm", "p-256")
            shell.text("key", "create", "pay/mac", "--algorithm", "hmac-sha-256")
            assert "yubihsm" in shell.text("hsm", "list")
            assert "WRAP DATA" in shell.text("hsm", "info")
            roles = sorted(str(row["role"]) for row in _rows(shell.json("hsm", "objects"), "objects"))
            assert roles == sorted(["root"] * 3 + ["audit"] + ["vault"] * 2 + ["key"] * 2 + ["login"] * 2)
            assert "all are known and there" in shell.text("hsm", "objects")
            told = _rows(shell.json("hsm", "selftest"), "checks")
            able = {row["check"] for row in told if row["outcome"] == "ok"}
            assert able == {"random", "hmac", "audit-key", "sealing", "seal"}
            assert {row["outcome"] for row in told} == {"ok", "unsupported"}
            measured = shell.text("hsm", "bench", "--count", "5").splitlines()
            assert [line.split()[0] for line in measured if "not on this HSM" in line] == [
                "aes-256-gcm",
                "p-256",
                "generate-p-256",
            ]

            shell.run("hsm", "attest", "pay/signer", "--out", "chain.pem")
            leaf, maker = x509.load_pem_x509_certificates((tmp_path / "chain.pem").read_bytes())
            leaf.verify_directly_issued_by(maker)
            public = leaf.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            assert public == shell.run("key", "public", "pay/signer").stdout
            assert b"does not vouch for hmac-sha-256" in shell.run("hsm", "attest", "pay/mac", status=65).stderr
            with running.client() as client:  # openk knows each of these operations in the device's own log
                assert client.system.health().status == "ok"


def test_workers_that_are_missing_are_told_with_what_to_do(own: RunningDaemon, tmp_path: Path) -> None:
    shell = Shell(own, tmp_path)
    shell.text("hsm", "list")
    os.kill(own.process.pid, signal.SIGSTOP)  # the monitor starts nobody again
    try:
        own.signal(signal.SIGKILL, "hsm-0")
        assert "1 of 2 workers are missing" in _until(shell, 1, "workers are missing")
        own.signal(signal.SIGKILL, "hsm-1")
        assert "requests wait" in _until(shell, 1, "restarting")
        assert "Requests are refused at once" in _until(shell, 69, "down")
        listed = shell.text("hsm", "list")  # it answers, and still knows which token it was
        assert "openk-dev" in listed
        gone = shell.run("hsm", "selftest", status=75)
        assert b"hsm.unavailable" in gone.stderr
    finally:
        os.kill(own.process.pid, signal.SIGCONT)
    _until(shell, 0, "up")
    assert "10 checks passed" in shell.text("hsm", "selftest")


def test_a_wrong_name_is_told_the_right_ones(shell: Shell) -> None:
    for verb in ("info", "status", "objects", "selftest"):
        assert b"dev" in shell.run("hsm", verb, "nope", status=2).stderr


def test_the_log_says_who_asked_what_of_which_hsm(daemon: RunningDaemon, client: openk.Client) -> None:
    client.hsm.selftest("dev", check="hmac")
    client.hsm.bench("random", count=3)
    with pytest.raises(VaultFault):
        client.hsm.attest("hsm-log/none")
    entries = [json.loads(entry.entry) for entry in client.audit.tail(limit=10)]
    asked = {entry["method"]: entry for entry in entries if entry.get("method", "").startswith("hsm.")}
    test, bench, attest = asked["hsm.selftest"], asked["hsm.bench"], asked["hsm.attest"]
    assert (test["outcome"], test["hsm"], test["checks"], test["failed"]) == ("ok", "dev", 1, 0)
    assert (bench["hsm"], bench["operation"], bench["count"]) == ("dev", "random", 3)
    assert attest["outcome"] != "ok"
    assert attest["key"] == "hsm-log/none"


def test_others_are_refused_unless_a_policy_says_so(dev_folder: Path) -> None:
    """Operators may look; what touches the device is the administrators'."""
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        explain = client.policy.explain
        assert not any(explain(f"hsm.{verb}", uid=65534).allowed for verb in ("list", "status", "objects", "selftest"))
        watch = (dev_folder / "policies" / "examples" / "operators.cedar").read_text()
        for_nobody = watch.replace('principal.group_names.contains("operators")', "principal.uid == 65534")
        (dev_folder / "policies" / "20-operators.cedar").write_text(for_nobody)
        client.policy.reload()
        assert all(explain(f"hsm.{verb}", uid=65534).allowed for verb in ("list", "info", "status"))
        assert not any(explain(f"hsm.{verb}", uid=65534).allowed for verb in ("objects", "selftest", "bench"))
        (dev_folder / "policies" / "30-none.cedar").write_text(
            'forbid (principal, action == Action::"hsm.bench", resource);'
        )
        client.policy.reload()
        with pytest.raises(PolicyFault):
            client.hsm.bench("random")


def test_a_start_that_waits_for_its_token_says_so(dev_folder: Path) -> None:
    (dev_folder / "tokens").rename(dev_folder / "away")
    daemon = start_daemon(dev_folder)
    try:
        daemon.wait_for("hsm.awaited")
        (dev_folder / "away").rename(dev_folder / "tokens")
        daemon.wait_for("openkd ready:")
        daemon.stop()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def test_an_upgrade_brings_the_schema_of_its_own_version(dev_folder: Path) -> None:
    with running_daemon(dev_folder):
        pass
    schema = dev_folder / "policies" / "openk.cedarschema"
    current = schema.read_text()
    schema.write_text(current.replace('"hsm.list", ', ""))
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert client.hsm.list()[0].state == "up"
    assert schema.read_text() == current


def _rows(answer: Mapping[str, object], name: str) -> list[dict[str, object]]:
    rows = answer[name]
    assert isinstance(rows, list)
    return rows


def _labels(shell: Shell) -> list[object]:
    return [row["label"] for row in _rows(shell.json("hsm", "objects"), "objects")]


def _until(shell: Shell, status: int, text: str, seconds: float = 20.0) -> str:
    """What `openk hsm status` says once it says `text`, with that exit status."""
    until = time.monotonic() + seconds
    while True:
        command = [sys.executable, "-m", "openk_tools.cli", "hsm", "status"]
        done = subprocess.run(command, env=shell._environment, capture_output=True, text=True, timeout=30, check=False)
        if text in done.stdout and done.returncode == status:
            return done.stdout
        assert time.monotonic() < until, done.stdout + done.stderr
        time.sleep(0.1)
