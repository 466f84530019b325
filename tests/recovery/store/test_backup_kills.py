"""kill -9 of a process that makes backups, at any moment of one: what is there is whole, and what is not is cleared."""

from __future__ import annotations

import os
import random
from pathlib import Path

import trio

from openk_daemon.backup.maker import Course, Maker, Order
from openk_daemon.backup.restore import restore
from openk_daemon.backup.shelf import PARTIAL
from openk_daemon.backup.verification import verify
from openk_daemon.store.copying import SqliteOriginal
from tests.daemon.audit.logs import run_state
from tests.recovery.store.writers import Killer

ROUNDS = 12


def test_a_backup_is_whole_or_not_there(killing: Killer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shelf = tmp_path / "state.backups"
    shelf.mkdir(mode=0o700)
    chance = random.Random(5)
    interrupted = 0
    for _ in range(ROUNDS):
        killing.run("backups", str(state), chance.uniform(0.05, 0.4))
        left = os.listdir(shelf)
        interrupted += any(name.startswith(PARTIAL) for name in left)
        for name in left:
            if name != "lock" and not name.startswith(PARTIAL):
                verify(shelf / name, SqliteOriginal(str(state)))
    assert interrupted > 2, "no kill met a backup that was being made: the test shows nothing"
    newest = trio.run(last, state, shelf)
    assert not [name for name in os.listdir(shelf) if name.startswith(PARTIAL)]
    restored = tmp_path / "restored"
    restored.mkdir(mode=0o700)
    restore(shelf / newest, restored, SqliteOriginal(str(restored)), replace=False)
    trio.run(start, restored)


async def last(state: Path, shelf: Path) -> str:
    """The state starts, and the next backup is made."""
    async with run_state(str(state)) as running:
        order = Order((await running.head()).checkpoint, 3, 0, "0.0.0")
        return Maker(shelf, state, SqliteOriginal(str(state))).make(order, Course()).backup.name


async def start(state: Path) -> None:
    async with run_state(str(state)) as running:
        assert running.recovery.disagreements == ()
