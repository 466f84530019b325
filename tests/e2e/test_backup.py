"""Backups as an operator meets them: made while it serves, listed, verified, put back into an empty folder, and served from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import openk
from tests.support.daemon import OPENKD, RunningDaemon, copy_template, running_daemon, with_backups

AUDIT_VERIFY = Path(__file__).parents[2] / "tools/openk_tools/audit_verify.py"


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A dev folder whose backups go to `backups` beside it."""
    return with_backups(copy_template(template, tmp_path / "dev"), tmp_path / "backups")


def openk_command(daemon: RunningDaemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.socket), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def openkd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *OPENKD, *words], capture_output=True, text=True, timeout=60, check=False)


def test_options_that_do_not_fit_together() -> None:
    assert "--replace needs --restore" in openkd("--dev", "/nowhere", "--replace").stderr
    assert openkd("--verify-backup", "/nowhere").returncode == 1
    assert "leave --verify-backup out" in openkd("--verify-backup", "/nowhere", "--restore", "/nowhere").stderr


def test_made_listed_verified_restored_and_served_from(template: Path, folder: Path, tmp_path: Path) -> None:
    with running_daemon(folder) as daemon:
        daemon.wait_for("backup.made ")  # none was there: one is due at once
        with daemon.client() as client:
            client.vault.create("shop")
            client.secret.put("shop/db", b"kept for later")
            head = client.audit.head()
        made = openk_command(daemon, "backup", "create", "--json")
        assert made.returncode == 0, made.stderr
        name = json.loads(made.stdout)["backup"]
        with daemon.client() as client:
            client.secret.put("shop/late", b"after it")
            listed = client.backup.list()
            assert [backup.backup for backup in listed.backups][-1] == name
            assert listed.running is None
            assert listed.last is not None
            assert listed.last["backup"] == name
            health = client.system.health()
            assert health.components["backup"]["state"] == "ok", health
            assert "openk_backups_made_total 2" in client.system.metrics()
            kinds = [event.kind for event in client.system.events().events]
            assert kinds.count("backup.made") == 2
            entries = [json.loads(entry.entry) for entry in client.audit.tail(limit=100)]
        told = [entry for entry in entries if entry.get("event") == "backup.made"]
        assert [entry["by"] for entry in told] == ["schedule", "request"]
        assert told[-1]["backup"] == name
        assert "MADE" in openk_command(daemon, "backup", "list").stdout

        (tmp_path / "backups").chmod(0o770)
        failed = openk_command(daemon, "backup", "create")
        assert failed.returncode == 74
        assert "[backup.failed]" in failed.stderr
        assert "reason: folder" in failed.stderr
        (tmp_path / "backups").chmod(0o700)
        with daemon.client() as client:
            assert client.system.health().components["backup"]["state"] == "degraded"

    backup = tmp_path / "backups" / name
    assert sorted(os.listdir(backup)) == ["backup.json", "checkpoint", "store.db"]
    verified = openkd("--verify-backup", str(backup))
    assert verified.returncode == 0, verified.stderr
    assert "audit entries" in verified.stdout

    fresh = copy_template(template, tmp_path / "fresh")
    (fresh / "state").mkdir(mode=0o700)
    restored = openkd("--dev", str(fresh), "--restore", str(backup))
    assert restored.returncode == 0, restored.stderr
    assert "--old-checkpoint" in restored.stdout
    (tmp_path / "old").write_text(head.checkpoint)
    (tmp_path / "key").write_text(head.verifier_key)
    with running_daemon(fresh) as daemon, daemon.client() as client:
        assert bytes(client.secret.get("shop/db").value) == b"kept for later"
        with pytest.raises(openk.Error) as refused:
            client.secret.get("shop/late")
        assert refused.value.code == "secret.unknown"
        client.audit.head()
        assert client.system.health().components["backup"]["state"] == "unknown"  # this one has no [backup]
        with pytest.raises(openk.Error) as refused:
            client.backup.create()
        assert refused.value.code == "backup.unconfigured"
        command = [sys.executable, str(AUDIT_VERIFY), str(fresh / "state" / "audit"), "--public-key", str(tmp_path / "key")]
        audit = subprocess.run(
            [*command, "--old-checkpoint", str(tmp_path / "old")], capture_output=True, text=True, timeout=60, check=False
        )
        assert audit.returncode == 0, audit.stdout + audit.stderr
