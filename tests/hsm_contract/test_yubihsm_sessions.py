"""Sessions end after 30 idle seconds; nobody notices."""

from __future__ import annotations

import pytest
from yubihsm import YubiHsm
from yubihsm.exceptions import YubiHsmDeviceError

from openk_hsm.errors import Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Mechanism, OpCode, Operation
from tests.support.yubihsm_inline import InlineDevice, back_end_of


def mac(lane: InlineLane) -> object:
    return lane.submit(Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"question")).result()


def sessions(lane: InlineLane) -> str:
    return back_end_of(lane).health()["sessions opened"]


def test_an_idle_session_is_opened_anew() -> None:
    device = InlineDevice()
    lane = device.lane()
    before = mac(lane)
    for expected in ("2", "3"):
        device.now += 31
        assert mac(lane) == before
        assert sessions(lane) == expected


@pytest.mark.parametrize("look", ["health", "notices"])
def test_whoever_looks_after_the_worker_keeps_its_session_alive(look: str) -> None:
    device = InlineDevice()
    lane = device.lane()
    for _ in range(10):
        device.now += 20
        if look == "health":
            back_end_of(lane).health()
        else:
            lane.notices(0).result()
    assert mac(lane)
    assert sessions(lane) == "1"


def test_ending_gives_the_session_back() -> None:
    device = InlineDevice()
    for _ in range(40):
        device.lane().close()


def test_taken_sessions_are_told_and_free_again_after_their_time() -> None:
    device = InlineDevice()
    device.lane().close()
    others = YubiHsm(device.transport())
    kept = [others.create_session_derived(1, "password") for _ in range(16)]
    with pytest.raises(YubiHsmDeviceError):
        others.create_session_derived(1, "password")
    with pytest.raises(Unavailable, match="end after 30 seconds"):
        device.lane()
    device.now += 31
    assert mac(device.lane())
    assert kept


def test_a_password_that_was_changed_meanwhile_ends_the_worker_and_is_tried_by_a_fresh_one() -> None:
    """There it latches; a worker that serves must not go on trying."""
    device = InlineDevice()
    lane = device.lane()
    assert mac(lane)
    others = YubiHsm(device.transport())
    with others.create_session_derived(1, "password") as session:
        (key,) = [found for found in session.list_objects() if found.id == 1 and found.object_type == 2]
        key.change_password("another")  # type: ignore[attr-defined]  # an AuthenticationKey
    device.now += 31
    with pytest.raises(Unavailable, match="another password"):
        mac(lane)
