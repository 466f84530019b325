"""A YubiHSM is out of reach under load, reboots and loses its sessions, and comes back: nobody restarts anything, every
request is answered, and the device's log has nothing that is not ours.

    OPENK_OUTAGES=100 OPENK_OUTAGE_SECONDS=5 pytest -s tests/recovery/hsm/test_yubihsm_outage.py       (about 15 minutes)
"""

from __future__ import annotations

from pathlib import Path

from tests.recovery.hsm.outages import SECONDS, endure
from tests.support.load import YUBIHSM
from tests.support.yubihsm_site import alarms, notices, yubihsm_site

TROUBLES = ("unreachable", "reboot")


async def test_a_device_that_goes_and_comes_costs_nobody_an_answer(tmp_path: Path) -> None:
    with yubihsm_site(tmp_path / "site") as (device, site):

        def go(number: int) -> None:
            device.fault(TROUBLES[number % len(TROUBLES)], seconds=SECONDS, times=1)

        await endure(site, go, come=lambda: None, mix=YUBIHSM)
        assert any("the device was started again" in told for told in notices(site))
        assert alarms(site) == []
