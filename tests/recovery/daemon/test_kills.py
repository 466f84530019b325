"""kill -9 of daemon, workers and monitor at random moments under a mixed load; 120 of them in CI, more by

    OPENK_KILLS=200 pytest tests/recovery/daemon/test_kills.py       (about three minutes)
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import trio

from tests.recovery.daemon.assault import Assault, among, examine, load, public_key, seed
from tests.support.daemon import copy_template
from tests.support.load import Book, check, furnish

KILLS = int(os.environ.get("OPENK_KILLS", "120"))
WORKER_KILLS = KILLS * 3 // 10
MIXED_KILLS = KILLS - WORKER_KILLS


async def finish(assault: Assault, book: Book) -> int:
    """What was promised is there; then a clean stop, and what is left agrees with itself. The log's size."""
    folder = assault.folder
    await check(folder / "openkd.sock", book)
    public = await public_key(folder)
    assert assault.daemon is not None
    await trio.to_thread.run_sync(assault.daemon.stop)
    return await examine(folder, public)


async def test_a_worker_that_is_killed_costs_no_client_an_error(template: Path, tmp_path: Path) -> None:
    chance = random.Random(seed())
    assault = Assault(copy_template(template, tmp_path / "dev"), chance)
    book = Book()
    began = time.monotonic()
    try:
        await assault.start()
        await furnish(assault.folder / "openkd.sock", book)
        while assault.kills["hsm"] < WORKER_KILLS:
            async with load(assault.folder, book, chance):
                for turn in range(10):  # the monitor waits longer after each death: start afresh then
                    await trio.sleep(chance.uniform(0.0, 0.2))
                    lost = await assault.workers_lost()
                    await assault.kill_child(f"hsm-{turn % 2}")
                    await assault.wait_for_workers(lost + 1)  # a second death under one operation would be its end
            assert assault.daemon is not None
            await trio.to_thread.run_sync(assault.daemon.stop)
            await assault.start()
        size = await finish(assault, book)
    finally:
        assault.end()
    report(assault, book, size, began)
    # An object of the token that was just being made is not made twice: its client is told.
    assert among(book, lambda method, code: (method, code) == ("key.create resident", "hsm.interrupted")) == []
    assert book.lost == 0, "only workers were killed"


async def test_nothing_acknowledged_is_lost(template: Path, tmp_path: Path) -> None:
    chance = random.Random(seed())
    assault = Assault(copy_template(template, tmp_path / "dev"), chance)
    book = Book()
    began = time.monotonic()
    try:
        await assault.start()
        await furnish(assault.folder / "openkd.sock", book)
        async with load(assault.folder, book, chance):
            while assault.kills.total() < MIXED_KILLS:
                for victim in chance.sample(["hsm-0", "hsm-1", "hsm-0", "hsm-1", "openkd", "openkd"], 5):
                    await trio.sleep(chance.uniform(0.05, 0.6))
                    await assault.kill_child(victim)
                await trio.sleep(chance.uniform(0.1, 0.4))
                await chance.choice([assault.kill_monitor, assault.kill_monitor, assault.kill_all])()
        size = await finish(assault, book)
    finally:
        assault.end()
    report(assault, book, size, began)
    waiting = {"hsm.unavailable", "hsm.interrupted", "hsm.timeout"}  # a daemon that drains without workers
    assert among(book, lambda method, code: code in waiting) == []
    assert book.writes > 100, "there was no load to speak of"


def report(assault: Assault, book: Book, size: int, began: float) -> None:
    print(
        f"{dict(assault.kills)} kills, {book.answered} requests answered, {book.writes} writes acknowledged, "
        f"{book.lost} without an answer, {dict(book.refused)} refused, {size} audit entries, "
        f"children followed within {assault.slowest_end:.2f} s, {time.monotonic() - began:.0f} s"
    )
