"""openkd with a home HSM that is not SoftHSM2: the main job over a restart, and a log that strangers can verify."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import openk
import openk_tools.audit_verify
from tests.support.daemon import RunningDaemon, running_daemon
from tests.support.foreign_tokens import ForeignToken, opencryptoki, softokn


@contextmanager
def nss(folder: Path) -> Generator[ForeignToken]:
    yield softokn(folder)


HOMES = {"opencryptoki": (opencryptoki, "rsa-3072"), "NSS softokn": (nss, "p-256")}


@pytest.mark.parametrize("home", HOMES)
def test_the_main_job_and_a_restart_on_another_home(tmp_path: Path, home: str) -> None:
    opened, audit = HOMES[home]
    with opened(tmp_path / "token") as token:
        assert f"openk-audit ({audit})" in token.cli("init", *token.access)
        folder = dev_folder(tmp_path / "dev", token)
        with running_daemon(folder, prefix=token.prefix) as daemon, daemon.client() as client:
            assert not [line for line in daemon.log.splitlines() if "hardening.missing" in line and "landlock" in line]
            assert client.audit.head().algorithm == audit
            kept = work(client)
            verified(daemon, audit)
            checks = {check.check: check.outcome for check in client.hsm.selftest().checks}
            assert checks["audit-key"] == "ok"
            assert set(checks.values()) <= {"ok", "unsupported"}
            (folder / "old-head").write_text(client.audit.head().checkpoint)
        with running_daemon(folder, prefix=token.prefix) as daemon, daemon.client() as client:
            again(client, *kept)
            verified(daemon, audit, "--old-checkpoint", str(folder / "old-head"))
            assert client.system.health().status == "ok"


def dev_folder(folder: Path, token: ForeignToken) -> Path:
    folder.mkdir(mode=0o700)
    (folder / "token-uri").write_text(token.uri + "\n")
    (folder / "pin").write_text(token.pin_file.read_text())
    (folder / "pin").chmod(0o600)
    return folder


def work(client: openk.Client) -> tuple[bytes, bytes, bytes]:
    """What a client keeps: a MAC, a signature, a ciphertext."""
    client.vault.create("pay")
    client.key.create("pay/mac", "hmac-sha-256")
    client.key.create("pay/sign", "rsa-2048", purpose="sign")
    client.key.create("pay/resident", "rsa-2048", purpose="sign", protection="resident")
    client.key.create("pay/aes", "aes-256-gcm", protection="cached")
    client.key.create("pay/edwards", "ed25519", protection="cached")
    signature = client.key.sign("pay/sign", b"document").signature
    for key in ("pay/resident", "pay/edwards"):
        signed = client.key.sign(key, b"document").signature
        assert client.key.verify(key, b"document", signed).version == 1
    assert client.secret.put("pay/db", b"hunter2").version == 1
    assert client.secret.put("pay/db", b"hunter3").version == 2
    assert client.key.rotate("pay/mac").version == 2
    sealed = client.key.encrypt("pay/aes", b"4111", aad=b"17").ciphertext
    return client.key.mac("pay/mac", b"message").mac, signature, sealed


def again(client: openk.Client, mac: bytes, signature: bytes, sealed: bytes) -> None:
    assert client.key.mac("pay/mac", b"message").mac == mac
    assert client.key.verify("pay/sign", b"document", signature).version == 1
    assert client.key.sign("pay/resident", b"document").signature
    assert bytes(client.key.decrypt("pay/aes", sealed, aad=b"17").plaintext) == b"4111"
    value = client.secret.get("pay/db").value
    assert value is not None
    assert bytes(value) == b"hunter3"
    assert client.secret.delete("pay/db").deleted == 2


def verified(daemon: RunningDaemon, audit: str, *more: str) -> None:
    """By the single file, run as strangers do, with the key in each form that the daemon gives."""
    with daemon.client() as client:
        head = client.audit.head()
    assert head.algorithm == audit
    command = [sys.executable, "-I", "-S", openk_tools.audit_verify.__file__, str(daemon.folder / "state" / "audit")]
    done = subprocess.run(
        [*command, "--public-key", head.verifier_key, "--json", *more], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert json.loads(done.stdout)["size"] >= head.signed_size
