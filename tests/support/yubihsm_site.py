"""A daemon with the worker of an emulated YubiHSM, whose log is followed and forced."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from openk_hsm.yubihsm.setup import AUDITED
from tests.support.site import Site, Source
from tests.support.yubihsm import EmulatedDevice, emulated, initialise


@contextmanager
def yubihsm_site(folder: Path, *settings: str) -> Generator[tuple[EmulatedDevice, Site]]:
    """Set up as docs/hsm.md says; not started. The device ends with the block."""
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True, commands=AUDITED)
        pin = folder / "main.latch" / "pin"
        site = Site(folder, {"main": Source(device.uri(), pin, os.environ)}, settings=settings)
        pin.parent.mkdir()
        initialise(device, pin.parent)
        yield device, site


def notices(site: Site) -> list[str]:
    """What the device's log gave cause to tell, oldest first: one JSON text each."""
    told = (site.folder / "main.latch").glob("yubihsm-*.notices")
    return [line for file in told for line in file.read_text().splitlines()]


def alarms(site: Site) -> list[str]:
    """Of these, what nobody but a stranger can have done."""
    return [line for line in notices(site) if json.loads(line)["alarm"]]
