"""A YubiHSM on USB: the `yubihsm` package's back end over a `pyusb` that knows one emulated device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from openk_hsm.errors import TokenMissing
from openk_hsm.inline import InlineLane
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Mechanism, OpCode, Operation
from openk_hsm.uri import parse_uri
from openk_hsm.yubihsm.backend import YubiHsmBackend
from tests.support.yubihsm_inline import PASSWORD, InlineDevice


class Plugged:
    """What pyusb shows of a device."""

    def __init__(self, device: InlineDevice, serial: str) -> None:
        self.serial_number = serial
        self._transport = device.transport()
        self._answer = b""

    def get_active_configuration(self) -> SimpleNamespace:
        return SimpleNamespace(bConfigurationValue=1)

    def write(self, endpoint: int, message: bytes, timeout: int) -> int:
        assert endpoint == 1
        if message:
            self._answer = self._transport.transceive(message)
        return len(message)

    def read(self, endpoint: int, size: int, timeout: int) -> bytes:
        assert endpoint == 0x81
        answer, self._answer = self._answer, b""
        return answer


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[InlineDevice]:
    device = InlineDevice(12345)
    device.lane().close()
    usb, core, util = ModuleType("usb"), ModuleType("usb.core"), ModuleType("usb.util")
    vars(core).update(USBError=OSError, find=lambda **_: [Plugged(device, "0000012345")])
    vars(util).update(dispose_resources=lambda _: None)
    vars(usb).update(core=core, util=util)
    for module in (usb, core, util):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "yubihsm.backends.usb", raising=False)
    yield device
    sys.modules.pop("yubihsm.backends.usb", None)


@pytest.mark.parametrize("uri", ["yubihsm:usb:serial=12345", "yubihsm:usb"])
def test_a_device_is_found_and_used(device: InlineDevice, uri: str) -> None:
    pin = bytearray(PASSWORD)
    lane = InlineLane(YubiHsmBackend(parse_uri(uri)), pin=lambda: memoryview(pin))
    answer = lane.submit(Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q")).result()
    direct = device.lane()
    assert direct.submit(Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q")).result() == answer
    lane.close()


def test_another_serial_is_not_there(device: InlineDevice) -> None:
    with pytest.raises(TokenMissing, match="with serial 0000000007 on USB"):
        YubiHsmBackend(parse_uri("yubihsm:usb:serial=7")).load()
