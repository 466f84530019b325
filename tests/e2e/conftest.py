"""Fixtures of the end-to-end tests: one daemon that most of them share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import openk
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template, with_backups

__all__ = ["client", "daemon", "dev_folder", "template"]


@pytest.fixture(scope="session")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """One for all tests that only ask: each works in a vault of its own. Its log must be clean at the end."""
    with running_daemon(with_backups(copy_template(template, tmp_path_factory.mktemp("shared") / "dev"))) as running:
        yield running


@pytest.fixture
def dev_folder(template: Path, tmp_path: Path) -> Path:
    """A folder for a daemon of the test's own."""
    return copy_template(template, tmp_path / "dev")


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[openk.Client]:
    with daemon.client() as made:
        yield made
