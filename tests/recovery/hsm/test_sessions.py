"""500 clients on a token that is used through 16 sessions: 8 workers with two each. Clients never own a session, so none
can be short of one; and the queue is fair, so none waits much longer than another."""

from __future__ import annotations

import time
from pathlib import Path

import trio
import trio.testing

from tests.support.load import Wire
from tests.support.site import Site, Source, answered
from tests.support.tokens import Token

CLIENTS = 500
WORKERS = 8
EACH = 10
"""Requests of a client, one after the other."""
FAIR = 1.5
"""Most that the slowest client may take, in multiples of the fastest one's time."""


async def test_500_clients_over_16_sessions(token: Token, tmp_path: Path) -> None:
    source = Source(token.uri, token.pin_file, token.environment, WORKERS)
    site = Site(tmp_path / "site", {"main": source})
    async with site.running() as wire:
        await answered(wire, "vault.create", vault="v")
        await answered(wire, "key.create", key="v/k", algorithm="p-256")
        with trio.fail_after(60):
            while (await answered(wire, "hsm.status", hsm="main"))["hsms"][0]["workers"] < WORKERS:  # noqa: ASYNC110 - of others
                await trio.sleep(0.05)
        wires = [Wire(site.socket) for _ in range(CLIENTS)]
        for one in wires:
            await one.connect()
            await answered(one, "system.ping")
        took: list[float] = []
        ready, begun = trio.Event(), [0.0]

        async def work(one: Wire) -> None:
            await ready.wait()
            for _ in range(EACH):
                signed = await answered(one, "key.sign", key="v/k", input=b"x" * 64)
                assert signed["signature"]
            took.append(time.monotonic() - begun[0])

        async with trio.open_nursery() as nursery:
            for one in wires:
                nursery.start_soon(work, one)
            await trio.testing.wait_all_tasks_blocked()
            begun[0] = time.monotonic()
            ready.set()
        for one in wires:
            await one.close()
        health = (await answered(wire, "hsm.status", hsm="main"))["hsms"][0]
    assert len(took) == CLIENTS
    print(
        f"{CLIENTS} clients, {EACH} signatures each over {2 * WORKERS} sessions: fastest {min(took):.2f} s, slowest "
        f"{max(took):.2f} s, {CLIENTS * EACH / max(took):.0f} a second; {health['restarts']} workers lost"
    )
    assert max(took) / min(took) <= FAIR
    assert health["restarts"] == 0
