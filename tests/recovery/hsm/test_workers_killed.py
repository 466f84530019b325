"""Workers are killed at random moments under a mixed load: no client hears of it, nothing is there twice, nothing is
left on the token.

    OPENK_OPERATIONS   requests that must be answered (10,000)
    OPENK_SEED         repeats a run's choices
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import trio

from tests.recovery.daemon.assault import among, examine, load, public_key, seed
from tests.support.load import Book, check, furnish
from tests.support.site import Site, Source, answered
from tests.support.tokens import Token

OPERATIONS = int(os.environ.get("OPENK_OPERATIONS", "10000"))
CLIENTS = 8
KILLS = 20
"""About how many, spread over the requests."""


async def test_a_killed_worker_costs_nobody_an_error(token: Token, tmp_path: Path) -> None:
    chance = random.Random(seed())
    source = Source(token.uri, token.pin_file, token.environment, workers=2)
    patience = ("operation_seconds = 30.0", "breaker_seconds = 30.0")  # a busy machine starts workers slowly
    site = Site(tmp_path / "site", {"main": source}, settings=patience)
    book = Book()
    kills, began = 0, time.monotonic()
    async with site.running() as wire:
        await furnish(site.socket, book)
        async with load(site.folder, book, chance, CLIENTS):
            while book.answered < OPERATIONS:
                due = book.answered + chance.randrange(2 * OPERATIONS // KILLS)  # however fast this machine is
                while book.answered < due:  # noqa: ASYNC110 - the answers of other tasks
                    await trio.sleep(0.01)
                site.kill(f"main-{chance.randrange(2)}")
                kills += 1
        took = time.monotonic() - began
        await check(site.socket, book)
        listed = await answered(wire, "hsm.objects", hsm="main")
        health = (await answered(wire, "hsm.status", hsm="main"))["hsms"][0]
        public = await public_key(site.folder)
    size = await examine(site.folder, public)
    print(
        f"{book.answered} requests of {CLIENTS} clients in {took:.0f} s, {kills} kills, {health['restarts']} workers "
        f"lost, {health['replayed']} operations done again, refused: {dict(book.refused)}, {size} audit entries"
    )
    assert health["restarts"] > 10, "hardly a worker was lost: this proves nothing"
    # An object of the token that was just being made is not made twice: its client is told.
    assert among(book, lambda method, code: (method, code) == ("key.create resident", "hsm.interrupted")) == []
    assert book.lost == 0
    orphans = [row for row in listed["objects"] if row["state"] != "ok" or row["role"] == "unfinished"]
    assert orphans == []
