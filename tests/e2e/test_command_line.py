"""The command line as a person uses it, and the log verified by a program that shares no code with the daemon."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from tests.support.daemon import RunningDaemon

ROOT = Path(__file__).parents[2]


class Shell:
    """`openk` in a folder, with the daemon's socket in the environment."""

    def __init__(self, daemon: RunningDaemon, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "OPENK_SOCKET": str(daemon.socket), "COLUMNS": "120"}

    def run(self, *words: str, given: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "openk_tools.cli", *words]
        done = subprocess.run(
            command, input=given, capture_output=True, cwd=self.folder, env=self._environment, timeout=30, check=False
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr
        return done

    def text(self, *words: str, given: bytes = b"") -> str:
        return self.run(*words, given=given).stdout.decode()

    def json(self, *words: str) -> Mapping[str, object]:
        loaded = json.loads(self.run(*words, "--json").stdout)
        assert isinstance(loaded, dict)
        return cast("dict[str, object]", loaded)


@pytest.fixture
def shell(daemon: RunningDaemon, tmp_path: Path) -> Shell:
    return Shell(daemon, tmp_path)


def test_files_are_encrypted_signed_and_come_back(shell: Shell) -> None:
    (shell.folder / "document").write_bytes(b"a document\n" * 1000)
    shell.text("vault", "create", "shell")
    shell.text("key", "create", "shell/file", "--algorithm", "aes-256-gcm")
    shell.text("key", "create", "shell/release", "--algorithm", "p-256", "--protection", "resident")
    assert "shell/release" in shell.text("key", "list", "shell")

    shell.run("key", "encrypt", "shell/file", "--in", "document", "--out", "sealed", "--aad", "licence")
    shell.run("key", "decrypt", "shell/file", "--in", "sealed", "--out", "opened", "--aad", "licence")
    assert (shell.folder / "opened").read_bytes() == (shell.folder / "document").read_bytes()
    assert b"a document" not in (shell.folder / "sealed").read_bytes()
    wrong = shell.run("key", "decrypt", "shell/file", "--in", "sealed", "--aad", "another", status=65)
    assert b"key.ciphertext_invalid" in wrong.stderr
    assert wrong.stdout == b""

    shell.run("key", "sign", "shell/release", "--in", "document", "--out", "signature")
    shell.run("key", "public", "shell/release", "--out", "public.pem")
    shell.run("key", "verify", "shell/release", "--in", "document", "--signature", "signature")
    verify = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "document"]
    subprocess.run(verify, cwd=shell.folder, check=True, capture_output=True, timeout=20)
    described = shell.json("key", "describe", "shell/release")
    assert (described["algorithm"], described["protection"]) == ("p-256", "resident")


def test_secrets_come_from_standard_input_and_never_from_the_arguments(shell: Shell) -> None:
    shell.text("vault", "create", "shell-secrets")
    shell.run("secret", "put", "shell-secrets/db", "--trim", given=b"hunter2\n")
    assert shell.run("secret", "get", "shell-secrets/db").stdout.rstrip(b"\n") == b"hunter2"
    assert "shell-secrets/db" in shell.text("secret", "list", "shell-secrets")
    typed = shell.run("secret", "put", "shell-secrets/db", "swordfish", status=2)
    assert b"swordfish" not in typed.stderr
    assert shell.run("secret", "get", "shell-secrets/db").stdout.rstrip(b"\n") == b"hunter2"
    shell.run("secret", "delete", "shell-secrets/db", "--yes")
    assert b"secret.unknown" in shell.run("secret", "get", "shell-secrets/db", status=66).stderr


def test_policies_explain_themselves(shell: Shell) -> None:
    shell.text("vault", "create", "shell-policies")
    shell.text("key", "create", "shell-policies/key", "--algorithm", "aes-256-gcm")
    mine = shell.json("policy", "explain", "key.decrypt", "shell-policies/key")
    assert mine["allowed"] is True
    theirs = shell.json("policy", "explain", "key.decrypt", "shell-policies/key", "--uid", "65534")
    assert theirs["allowed"] is False
    assert theirs["flips"]


def test_every_answer_is_had_as_json(shell: Shell) -> None:
    for words in (
        ["health"],
        ["version"],
        ["system", "info"],
        ["vault", "list"],
        ["audit", "head"],
        ["random", "bytes"],
    ):
        assert shell.json(*words)


def test_nobody_answers(tmp_path: Path, daemon: RunningDaemon) -> None:
    shell = Shell(daemon, tmp_path)
    gone = shell.run("--socket", str(tmp_path / "none.sock"), "health", status=69)
    assert b"daemon.unreachable" in gone.stderr


def verify(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The single file, isolated: nothing of openk is importable."""
    alone = folder / "audit_verify.py"
    shutil.copy(ROOT / "tools" / "openk_tools" / "audit_verify.py", alone)
    command: Sequence[str] = [sys.executable, "-I", str(alone), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=30, check=False)


def test_the_log_is_exported_and_verified_by_one_file_alone(daemon: RunningDaemon, shell: Shell) -> None:
    shell.text("vault", "create", "shell-audit")
    shell.run("audit", "export", "copy", "--key", "audit-key.pem")
    good = verify(shell.folder, "copy", "--public-key", "audit-key.pem")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "vault.create" in "".join(str(entry) for entry in _entries(daemon))

    head = shell.json("audit", "head")
    (shell.folder / "head.key").write_text(str(head["public_base64"]))
    assert base64.b64decode(str(head["public_base64"]))
    live = verify(shell.folder, str(daemon.folder / "state" / "audit"), "--public-key", "head.key")
    assert live.returncode == 0, live.stdout + live.stderr

    entries = max((shell.folder / "copy" / "tile" / "entries").rglob("*.p/*"), key=lambda path: path.stat().st_size)
    data = bytearray(entries.read_bytes())
    data[len(data) // 2] ^= 1
    entries.write_bytes(data)
    forged = verify(shell.folder, "copy", "--public-key", "audit-key.pem")
    assert forged.returncode != 0
    assert "Traceback" not in forged.stderr


def _entries(daemon: RunningDaemon) -> list[object]:
    with daemon.client() as client:
        return list(client.audit.tail(limit=50))
