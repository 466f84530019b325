"""An emulated YubiHSM in this process, without a socket between, and lanes on it. Fast, and its time stands still
until it is told to go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from yubihsm.backends import YhsmBackend
from yubihsm.exceptions import YubiHsmConnectionError

from openk_hsm.errors import HsmError
from openk_hsm.inline import InlineLane
from openk_hsm.roots import roots
from openk_hsm.seam import Algorithm, Resident
from openk_hsm.uri import HsmUri, parse_uri
from openk_hsm.yubihsm import backend as back_end
from yubihsm_emulator.backend import EmulatorBackend
from yubihsm_emulator.device import Device
from yubihsm_emulator.link import Link
from yubihsm_emulator.plan_reader import read_json

PASSWORD = b"password"
URI = "yubihsm:http://in-process"


class InProcess(EmulatorBackend, YhsmBackend):
    """Frames for the device, as the `yubihsm` package hands them over."""


class InlineDevice:
    """`now`: the device's seconds."""

    def __init__(self, serial: int = 1) -> None:
        self.now = 1000.0
        self.device = Device(serial, clock=lambda: self.now)
        self.link = Link(self.device)

    def transport(self) -> YhsmBackend:
        return InProcess(self.link, YubiHsmConnectionError)

    def fault(self, plan: str) -> None:
        self.link.replan(read_json(plan.encode()))

    def lane(self, *, initialised: bool = True, state: Path | None = None) -> InlineLane:
        """A lane on it, as a worker would be; root keys are made if there are none."""
        if initialised:
            with suppress(HsmError):  # they were made before
                self._initialise(state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(back_end, "open_transport", self._transport_for)
            backend = back_end.YubiHsmBackend(parse_uri(URI), roots=initialised, state=state)
            pin = bytearray(PASSWORD)
            return InlineLane(backend, pin=lambda: memoryview(pin))

    def _transport_for(self, _: HsmUri) -> YhsmBackend:
        return self.transport()

    def _initialise(self, state: Path | None) -> None:
        lane = self.lane(initialised=False, state=state)
        try:
            for root in roots(Algorithm.AES_256_CCM, Algorithm.ED25519):
                assert isinstance(root.source, Resident)
                lane.generate_resident(root.spec, root.source.label, root.source.id).result()
        finally:
            lane.close()


def back_end_of(lane: InlineLane) -> back_end.YubiHsmBackend:
    found = lane._backend
    assert isinstance(found, back_end.YubiHsmBackend)
    return found
