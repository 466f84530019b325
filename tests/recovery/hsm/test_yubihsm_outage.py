"""A YubiHSM is out of reach under load, reboots and loses its sessions, and comes back: nobody restarts anything, every
request is answered, and the device's log has nothing that is not ours.

    OPENK_OUTAGES=100 OPENK_OUTAGE_SECONDS=5 pytest tests/recovery/hsm/test_yubihsm_outage.py       (about 15 minutes)
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import trio

from openk_hsm.yubihsm.setup import AUDITED
from tests.support.load import Refused, Wire
from tests.support.site import Site, Source, answered
from tests.support.yubihsm import emulated, initialise

OUTAGES = int(os.environ.get("OPENK_OUTAGES", "4"))
SECONDS = float(os.environ.get("OPENK_OUTAGE_SECONDS", "1"))
CLIENTS = 4
TROUBLES = ("unreachable", "reboot")


async def work(site: Site, expected: bytes, done: list[int], refusals: list[Refused]) -> None:
    """One client that asks for what the device must compute, on and on."""
    wire = Wire(site.socket)
    calls = [("key.mac", {"key": "v/mac", "input": b"question"}), ("secret.get", {"secret": "v/password"})]
    try:
        while True:
            for answer in await wire.ask(calls):
                if isinstance(answer, Refused):
                    refusals.append(answer)
                else:
                    assert answer is not None
                    assert expected == answer.get("mac", expected)
                    done[0] += 1
    finally:
        with trio.CancelScope(shield=True):
            await wire.close()


async def test_a_device_that_goes_and_comes_costs_nobody_an_answer(tmp_path: Path) -> None:
    done, refusals, recovered = [0], list[Refused](), list[float]()
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True, commands=AUDITED)
        site = Site(tmp_path / "site", {"main": Source(device.uri(), tmp_path / "pin", os.environ)})
        (site.folder / "main.latch").mkdir()
        initialise(device, site.folder / "main.latch")
        (tmp_path / "pin").write_bytes((site.folder / "main.latch" / "pin").read_bytes())
        async with site.running() as wire:
            await answered(wire, "vault.create", vault="v")
            await answered(wire, "key.create", key="v/mac", algorithm="hmac-sha-256")
            await answered(wire, "secret.put", secret="v/password", value=b"hunter2")
            expected = (await answered(wire, "key.mac", key="v/mac", input=b"question"))["mac"]
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(work, site, expected, done, refusals)
                for number in range(OUTAGES):
                    device.fault(TROUBLES[number % len(TROUBLES)], seconds=SECONDS, times=1)
                    begun, before = time.monotonic() + SECONDS, done[0]
                    await trio.sleep(SECONDS)
                    with trio.fail_after(15):
                        while done[0] < before + 50:  # noqa: ASYNC110 - the clients set no event
                            await trio.sleep(0.01)
                    recovered.append(time.monotonic() - begun)
                    await trio.sleep(SECONDS)
                nursery.cancel_scope.cancel()
    print(
        f"{OUTAGES} outages of {SECONDS} s, {done[0]} answers, {site.starts['main-0']} starts of the worker, back at work "
        f"after {statistics.median(recovered):.2f} s (median), {max(recovered):.2f} s (longest)"
    )
    assert refusals == []
    (notices,) = (site.folder / "main.latch").glob("yubihsm-*.notices")
    assert "the device was started again" in notices.read_text()
    assert '"alarm": true' not in notices.read_text()
