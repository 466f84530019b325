"""States to back up, and what is asked of a backup of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from openk_daemon.backup.maker import Course, Made, Maker, Order
from openk_daemon.store.copying import SqliteOriginal
from openk_daemon.store.seam import Write
from tests.daemon.audit.logs import Running, run_state

RECORDS = 40
SIZE = 700
"""Entries: several bundles of the published log, and one that is not full."""


async def fill(state: Path, size: int = SIZE, unsigned: int = 9) -> str:
    """A state with records and a log, of which the last `unsigned` entries are not under the head that is returned."""
    async with run_state(str(state), crash=True) as running:
        for number in range(RECORDS):
            await put(running, b"%02d" % number, b"body %d" % number * 100)
        await running.fill(size - RECORDS - unsigned)
        head = await running.head()
        await running.fill(unsigned)
    return head.checkpoint


async def put(running: Running, id_: bytes, body: bytes, expected: int = 0) -> None:
    await running.commit(Write("key", id_, expected, body), method="key.create")


def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def maker(tmp_path: Path) -> Maker:
    """Of backups of tmp_path/state in tmp_path/backups."""
    return Maker(shelf(tmp_path), tmp_path / "state", SqliteOriginal(str(tmp_path / "state")))


def order(head: str, keep: int = 3, reserve: int = 0, clock: Callable[[], float] = time.time) -> Order:
    return Order(head, keep, reserve, "0.0.0", clock)


def make(tmp_path: Path, head: str, keep: int = 3, clock: Callable[[], float] = time.time) -> Made:
    return maker(tmp_path).make(order(head, keep, clock=clock), Course())
