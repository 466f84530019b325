"""Workers are killed at random moments under a mixed load: no client hears of it, nothing is there twice, nothing is
left on the token. With two workers on SoftHSM2, with one, and with the one that a YubiHSM has.

    OPENK_OPERATIONS   requests that must be answered (10,000 with two workers, 2,500 in the other forms)
    OPENK_SEED         repeats a run's choices
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.recovery.daemon.assault import examine, load, public_key, seed
from tests.support.load import TOKEN, YUBIHSM, Book, Mix, check, furnish
from tests.support.site import Site, Source, answered
from tests.support.tokens import Token
from tests.support.yubihsm_site import alarms, yubihsm_site

CLIENTS = 8
KILLS = 20
"""About how many, spread over the requests."""
PATIENCE = ("operation_seconds = 30.0", "breaker_seconds = 30.0")
"""A busy machine starts workers slowly."""


@pytest.mark.parametrize(("workers", "operations"), [(2, 10_000), (1, 2_500)])
async def test_a_killed_worker_costs_nobody_an_error(
    token: Token, tmp_path: Path, workers: int, operations: int
) -> None:
    source = Source(token.uri, token.pin_file, token.environment, workers)
    await kill_under_load(Site(tmp_path / "site", {"main": source}, settings=PATIENCE), TOKEN, operations)


async def test_a_killed_worker_of_a_yubihsm_costs_nobody_an_error(tmp_path: Path) -> None:
    with yubihsm_site(tmp_path / "site", *PATIENCE) as (_, site):
        await kill_under_load(site, YUBIHSM, 2_500)
        assert alarms(site) == []


async def kill_under_load(site: Site, mix: Mix, operations: int) -> None:
    operations = int(os.environ.get("OPENK_OPERATIONS", operations))
    chance = random.Random(seed())
    workers = site.hsms["main"].workers
    book = Book()
    kills, began = 0, time.monotonic()
    async with site.running() as wire:
        await furnish(site.socket, book, mix)
        async with load(site.folder, book, chance, CLIENTS, mix):
            while book.answered < operations:
                due = book.answered + chance.randrange(2 * operations // KILLS)  # however fast this machine is
                await book.until(due)
                site.kill(f"main-{chance.randrange(workers)}")
                kills += 1
        took = time.monotonic() - began
        await check(site.socket, book)
        listed = await answered(wire, "hsm.objects", hsm="main")
        health = (await answered(wire, "hsm.status", hsm="main"))["hsms"][0]
        public = await public_key(site.folder)
    size = await examine(site.folder, public)
    objects = listed["objects"]
    print(
        f"{book.answered} requests of {CLIENTS} clients in {took:.0f} s, {kills} kills, {health['restarts']} workers "
        f"lost, {health['replayed']} operations done again, {book.objects} token objects asked for, {len(objects)} there, "
        f"refused: {dict(book.refused)}, {size} audit entries"
    )
    assert health["restarts"] > 10, "hardly a worker was lost: this proves nothing"
    assert book.refused == {}
    assert book.lost == 0
    # Unknown, missing, there twice, or begun and not destroyed.
    assert [row for row in objects if row["state"] != "ok" or row["role"] == "unfinished"] == []
