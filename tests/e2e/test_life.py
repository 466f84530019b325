"""A daemon's life: start, drain, reload, stop."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon import running_daemon


def test_a_daemon_starts_answers_and_stops(dev_folder: Path) -> None:
    with running_daemon(dev_folder) as daemon, daemon.client() as client:
        assert client.system.ping(b"echo") == b"echo"
        assert client.system.health().status == "ok"
