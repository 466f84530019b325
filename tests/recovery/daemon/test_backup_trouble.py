"""Backups of the real daemon when their disk is full, and when it is killed in the middle of one: it serves on, no half of a
backup counts, and the next one is whole. The disk is a small tmpfs over the folder of backups, so this needs root."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import openk
from openk_daemon.backup.verification import verify
from openk_daemon.store.copying import SqliteOriginal
from tests.recovery.daemon.assault import small_disk
from tests.support.daemon import copy_template, running_daemon, with_backups

LARGE = 40
"""Secrets of VALUE bytes: a store that takes a while to copy, and does not fit ROOM."""
VALUE = 400_000
ROOM = 6 << 20


def furnish(client: openk.Client) -> None:
    client.vault.create("v")
    for number in range(LARGE):
        client.secret.put(f"v/large-{number}", os.urandom(VALUE))


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.002)


def test_a_full_disk_is_told_of_and_costs_nobody_anything(template: Path, tmp_path: Path) -> None:
    folder = with_backups(copy_template(template, tmp_path / "dev"))
    shelf = folder / "backups"
    with small_disk(shelf, ROOM), running_daemon(folder) as daemon:
        daemon.wait_for("backup.made ")
        (first,) = [name for name in os.listdir(shelf) if name != "lock"]
        with daemon.client() as client:
            furnish(client)
            for _ in range(2):
                with pytest.raises(openk.Error) as failed:
                    client.backup.create(wait=30)
                assert failed.value.code == "backup.failed"
                assert failed.value.details["reason"] == "space"
                assert sorted(os.listdir(shelf)) == sorted([first, "lock"]), "something was left of it"
            found = client.system.health().components["backup"]
            assert isinstance(found, dict)
            assert found["state"] == "degraded"
            assert str(found["reason"]).startswith("the last backup failed (space: ")
            assert 'openk_backup_failures_total{reason="space"} 2' in client.system.metrics()
            assert bytes(client.secret.get("v/large-7").value)
            told = [json.loads(entry.entry) for entry in client.audit.tail(limit=20)]
            assert [entry["reason"] for entry in told if entry.get("event") == "backup.failed"] == ["space", "space"]
            assert client.system.health().status == "degraded"
        assert daemon.log.count("backup.failed ") == 2


def test_killed_in_the_middle(template: Path, tmp_path: Path) -> None:
    folder = with_backups(copy_template(template, tmp_path / "dev"))
    shelf = folder / "backups"

    def partial() -> bool:
        return any(name.startswith(".partial-") for name in os.listdir(shelf))

    with running_daemon(folder) as daemon:
        daemon.wait_for("backup.made ")
        with daemon.client() as client:
            furnish(client)
            client.backup.create(wait=0)
        until(partial, "no backup was begun")
        daemon.signal(signal.SIGKILL)
        daemon.wait_for("openkd ready", times=2)
        assert partial(), "it had ended already: the test shows nothing"
        with daemon.client() as client:
            listed = client.backup.list()
            made = client.backup.create(wait=30)
            assert made.backup is not None
            assert made.backup not in [backup.backup for backup in listed.backups]
            assert bytes(client.secret.get(f"v/large-{LARGE - 1}").value)
        assert not partial()
        for name in os.listdir(shelf):
            if name != "lock":
                verify(shelf / name, SqliteOriginal(str(shelf / name)))
