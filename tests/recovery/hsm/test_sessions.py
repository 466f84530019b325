"""500 clients on a token that allows 16 sessions. Clients never own a session, so none can be short of one; and the queue
is fair, so none waits much longer than another.

On PKCS#11 eight workers have them, and a ninth, which comes too late, is told so. On a YubiHSM others have 15 of them.
"""

from __future__ import annotations

import time
from pathlib import Path

import trio
import trio.testing
from yubihsm import YubiHsm

from openk_hsm.yubihsm.transport import Connector
from tests.support.load import Wire
from tests.support.outage import Device
from tests.support.site import Site, Source, answered
from tests.support.tokens import Token
from tests.support.yubihsm import FACTORY_KEY, FACTORY_PASSWORD
from tests.support.yubihsm_site import yubihsm_site

CLIENTS = 500
SESSIONS = 16
WORKERS = 8
FAIR = 1.5
"""Most that the slowest client may take, in multiples of the fastest one's time."""


async def test_500_clients_over_16_sessions(outage_module: Path, token: Token, tmp_path: Path) -> None:
    device = Device(outage_module, token, SESSIONS)
    source = Source(device.uri, token.pin_file, device.environment, WORKERS + 1)
    site = Site(tmp_path / "site", {"main": source})
    await crowd(site, WORKERS, each=10)
    assert "has no session left (it allows 16)" in site.log


async def test_500_clients_over_the_last_session_of_a_yubihsm(tmp_path: Path) -> None:
    with yubihsm_site(tmp_path / "site") as (device, site):
        others = [YubiHsm(Connector("127.0.0.1", device.port)) for _ in range(SESSIONS - 1)]
        for other in others:  # never ended: a session that is idle for 30 s makes room only when somebody wants another
            other.create_session_derived(FACTORY_KEY, FACTORY_PASSWORD)
        await crowd(site, 1, each=10)
        for other in others:
            other.close()


async def crowd(site: Site, workers: int, each: int) -> None:
    """`workers`: for how many there are sessions. `each`: requests of a client, one after the other."""
    async with site.running() as wire:
        await answered(wire, "vault.create", vault="v")
        await answered(wire, "key.create", key="v/k", algorithm="p-256")
        with trio.fail_after(120):
            while (await answered(wire, "hsm.status", hsm="main"))["hsms"][0]["workers"] < workers:  # noqa: ASYNC110 - of others
                await trio.sleep(0.05)
        wires = [Wire(site.socket) for _ in range(CLIENTS)]
        for one in wires:
            await one.connect()
            await answered(one, "system.ping")
        took: list[float] = []
        ready, begun = trio.Event(), [0.0]

        async def work(one: Wire) -> None:
            await ready.wait()
            for _ in range(each):
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
        f"{CLIENTS} clients, {each} signatures each, {workers} workers: fastest {min(took):.2f} s, slowest "
        f"{max(took):.2f} s, {CLIENTS * each / max(took):.0f} a second; {health['restarts']} workers lost"
    )
    assert max(took) / min(took) <= FAIR
    assert health["restarts"] == 0
