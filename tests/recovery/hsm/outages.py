"""A device that goes and comes under a mixed load, over and over.

OPENK_OUTAGES          how often
OPENK_OUTAGE_SECONDS   for how long each time
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from tests.recovery.daemon.assault import examine, load, public_key, seed
from tests.support.load import TOKEN, Book, Mix, check, furnish
from tests.support.site import Site, answered

OUTAGES: Final = int(os.environ.get("OPENK_OUTAGES", "6"))
SECONDS: Final = float(os.environ.get("OPENK_OUTAGE_SECONDS", "1"))
_BACK_WITHIN: Final = 60.0
"""Seconds: that it comes back at all. How soon is printed."""
_DEADLINE: Final = 10.0
"""Seconds, as shipped, that an operation waits, and that any waits while there is no worker. A busy machine may need
longer to start one: what is refused then is no fault, and how often that was is printed."""
_TOO_LATE: Final = {"hsm.timeout", "hsm.unavailable", "hsm.token_missing"}


async def endure(site: Site, go: Callable[[int], None], come: Callable[[], None], mix: Mix = TOKEN) -> None:
    """`go` is called with the number of the outage, `come` so many seconds later. No request may be lost, or refused
    before its deadline; nothing promised may be gone, nothing may be left on the token. Deadlines and the pace of module
    reloads are as shipped."""
    chance = random.Random(seed())
    book = Book()
    recovered: list[float] = []
    late = 0
    async with site.running() as wire:
        await furnish(site.socket, book, mix)
        async with load(site.folder, book, chance, mix=mix):
            for number in range(OUTAGES):
                gone, before = time.monotonic(), Counter(book.refused)
                go(number)
                await trio.sleep(SECONDS)
                come()
                begun = time.monotonic()
                with trio.fail_after(_BACK_WITHIN):
                    await book.until(book.answered + 50)
                recovered.append(time.monotonic() - begun)
                away = time.monotonic() - gone
                await trio.sleep(chance.uniform(0, SECONDS))
                refused = book.refused - before
                late += away > _DEADLINE
                assert not refused or away > _DEADLINE, f"refused in an outage of {away:.1f} s: {dict(refused)}"
        await check(site.socket, book)
        objects = (await answered(wire, "hsm.objects", hsm="main"))["objects"]
        public = await public_key(site.folder)
    await examine(site.folder, public)
    print(
        f"{OUTAGES} outages of {SECONDS} s, {book.answered} requests answered, {site.starts['main-0']} starts of a "
        f"worker, back at work after {statistics.median(recovered):.2f} s (median), {max(recovered):.2f} s (longest), "
        f"{late} times too late for somebody, refused: {dict(book.refused)}"
    )
    assert {code for _, code in book.refused} <= _TOO_LATE
    assert book.lost == 0
    assert [row for row in objects if row["state"] != "ok" or row["role"] == "unfinished"] == []
