"""A YubiHSM in trouble: each trouble has its error and a sentence that helps; what is safe is done again unseen."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yubihsm.core import AuthSession
from yubihsm.defs import CAPABILITY
from yubihsm.exceptions import YubiHsmDeviceError

from openk_hsm.dialling import Limits
from openk_hsm.errors import (
    HsmError,
    Interrupted,
    TokenMissing,
    TokenUninitialised,
    Unavailable,
    Untrusted,
    WrongPin,
)
from openk_hsm.lane_health import LaneState
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Algorithm, KeySpec, Mechanism, OpCode, Operation, Purpose
from openk_hsm.uri import parse_uri
from openk_hsm.yubihsm.backend import YubiHsmBackend
from openk_hsm.yubihsm.kinds import DELEGATED_NEEDS, SESSION_NEEDS
from tests.support.tokens import answer, lane_over, run_cli, start_worker, worker
from tests.support.yubihsm import (
    FACTORY_PASSWORD,
    PASSWORD,
    EmulatedDevice,
    emulated,
    initialise,
    lane_of,
    lane_on,
    mac,
)

P256 = KeySpec(Algorithm.P256, Purpose.SIGN)
MAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)


def list_for_ever(session: AuthSession) -> None:
    while True:
        session.list_objects()


# --- logging in ---


def test_asymmetric_sessions_work_and_hold_the_device_to_its_key(device: EmulatedDevice) -> None:
    device.add_authentication_key(7, asymmetric=True)
    with device.session() as session:
        public = session._hsm.get_device_public_key()
    digest = hashlib.sha256(public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]).hexdigest()
    with (
        lane_of(device) as symmetric,
        lane_of(device, key=7, authentication="asymmetric", device_key=digest) as asymmetric,
    ):
        assert mac(symmetric) == mac(asymmetric)
        device.fault("lose-sessions", times=1)
        assert mac(symmetric) == mac(asymmetric)
    with pytest.raises(Untrusted, match=digest):
        lane_on(device, key=7, authentication="asymmetric", device_key="0" * 64)
    with pytest.raises(WrongPin):
        lane_on(device, key=7, authentication="asymmetric", password=b"something else")


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ({"password": b"wrong"}, WrongPin, "another password"),
        ({"key": 99}, TokenMissing, r"no authentication key 99: make one \(docs/hsm.md\)"),
        ({"authentication": "asymmetric"}, WrongPin, "authentication="),
        ({"domain": "5"}, HsmError, "is in domain 1, not in 5"),
    ],
)
def test_a_login_that_fails_says_what_to_change(
    device: EmulatedDevice, how: dict[str, object], kind: type[HsmError], says: str
) -> None:
    with pytest.raises(kind, match=says) as refused:
        lane_on(device, **how)  # type: ignore[arg-type]  # by name
    assert bool(refused.value.device) is (kind is not HsmError)


@pytest.mark.parametrize(
    ("capabilities", "delegated", "says"),
    [
        (SESSION_NEEDS & ~CAPABILITY.UNWRAP_DATA, DELEGATED_NEEDS, "lacks capabilities: unwrap-data. docs"),
        (SESSION_NEEDS, DELEGATED_NEEDS & ~CAPABILITY.SIGN_HMAC, "lacks delegated capabilities: sign-hmac. docs"),
    ],
)
def test_what_an_authentication_key_lacks_is_named(
    device: EmulatedDevice, capabilities: CAPABILITY, delegated: CAPABILITY, says: str
) -> None:
    key = 100 + (capabilities ^ delegated) % 1000
    device.add_authentication_key(key, capabilities=capabilities, delegated=delegated)
    with pytest.raises(HsmError, match=says):
        lane_on(device, key=key)


def test_nobody_behind_the_address_is_said() -> None:
    with pytest.raises(Unavailable, match="is the connector running"):
        YubiHsmBackend(parse_uri("yubihsm:http://127.0.0.1:9")).log_in(lambda: memoryview(bytearray(b"x")))


def test_a_device_without_root_keys_says_init() -> None:
    with emulated() as device, pytest.raises(TokenUninitialised, match="openk-hsm init"):
        lane_on(device, key=1, password=FACTORY_PASSWORD.encode())


async def test_a_wrong_password_is_tried_once_and_latches(device: EmulatedDevice, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(b"wrong")
    sockets = [tmp_path / str(index) for index in range(2)]
    started = [start_worker(device.uri(), socket, pin, os.environ) for socket in sockets]
    try:
        async with lane_over(sockets, limits=Limits(handoff_bytes=64 << 10)) as lane:
            with trio.fail_after(10), pytest.raises(WrongPin):
                await lane.ready()
            assert lane.state is LaneState.LATCHED
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert len(list(tmp_path.glob("pin-*.latch"))) == 1  # noqa: ASYNC240
    pin.write_bytes(PASSWORD)
    assert "cleared" in run_cli("unlatch", "--uri", device.uri(), "--state", str(tmp_path))
    with worker(device.uri(), sockets[0], pin, os.environ):
        async with lane_over([sockets[0]], limits=Limits(handoff_bytes=64 << 10)) as lane:
            with trio.fail_after(10):
                await lane.ready()


# --- a device that goes and comes ---


@pytest.mark.parametrize("trouble", ["lose-sessions", "drop-request", "drop-reply", "corrupt-reply", "reboot"])
def test_a_command_that_is_pure_is_done_again_unseen(device: EmulatedDevice, trouble: str) -> None:
    with lane_of(device) as lane:
        before = mac(lane)
        device.fault(trouble, times=1)
        assert mac(lane) == before
        assert mac(lane) == before


@pytest.mark.parametrize("trouble", ["drop-request", "drop-reply", "corrupt-reply"])
def test_a_key_is_not_made_twice(device: EmulatedDevice, trouble: str) -> None:
    with lane_of(device) as lane:
        device.fault(trouble, "GENERATE_ASYMMETRIC_KEY", times=1)
        with pytest.raises(Unavailable):
            lane.generate_resident(P256, "once", b"only").result()
        made = [found for found in lane.objects().result() if found.label == "once"]
        assert len(made) == (0 if trouble == "drop-request" else 1)
        assert lane.destroy_resident("once", b"only").result() is bool(made)


def test_sessions_that_are_lost_make_no_key_twice_either(device: EmulatedDevice) -> None:
    with lane_of(device) as lane:
        device.fault("lose-sessions", "GENERATE_ASYMMETRIC_KEY", times=1)
        assert lane.generate_resident(P256, "once", b"only").result().public
        assert lane.destroy_resident("once", b"only").result()


def test_a_device_that_stays_away_ends_the_worker(device: EmulatedDevice) -> None:
    with lane_of(device) as lane:
        device.fault("unreachable", seconds=5, times=1)
        with pytest.raises(Unavailable, match=r"gone|went"):
            mac(lane)
        device.fault("")
        assert mac(lane)


async def test_callers_notice_nothing_of_a_device_that_is_away_for_a_second(
    device: EmulatedDevice, tmp_path: Path
) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(PASSWORD)
    socket = tmp_path / "s"
    process = start_worker(device.uri(), socket, pin, os.environ)
    try:
        async with lane_over([socket], limits=Limits(handoff_bytes=64 << 10)) as lane:
            await lane.ready()
            device.fault("unreachable", seconds=1.0, times=1)
            asked = [lane.submit(Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q")) for _ in range(20)]
            made = lane.generate_resident(P256, "not sure", b"x")
            with trio.fail_after(15):
                while process.poll() is None:  # noqa: ASYNC110 - a process sets no event
                    await trio.sleep(0.01)
                assert process.returncode == 75
                while True:
                    process = start_worker(device.uri(), socket, pin, os.environ)
                    await trio.sleep(0.3)
                    if lane.state is LaneState.UP:
                        break
                    process.kill()
                    process.wait()
                assert len({await answer(pending) for pending in asked}) == 1
                with suppress(Interrupted):
                    await answer(made)
                await answer(lane.destroy_resident("not sure", b"x"))
    finally:
        process.kill()
        process.wait()


# --- the log ---


def test_a_full_log_under_forced_audit_is_drained_and_the_command_done(tmp_path: Path) -> None:
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True)
        initialise(device, tmp_path)
        with lane_of(device, state=tmp_path) as lane:
            expected = mac(lane)
            with device.session() as session, pytest.raises(YubiHsmDeviceError, match="LOG_FULL"):
                list_for_ever(session)  # somebody else fills it
            assert mac(lane) == expected
            assert any("used the device" in notice.text for notice in lane.notices(0).result())
            for _ in range(150):  # more than twice what it holds
                assert mac(lane) == expected
            assert all("missing" not in notice.text for notice in lane.notices(0).result())


async def test_a_worker_that_is_killed_leaves_no_false_alarm(tmp_path: Path) -> None:
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True)
        pin = initialise(device, tmp_path)
        socket = tmp_path / "s"
        async with lane_over([socket], limits=Limits(handoff_bytes=64 << 10)) as lane:
            asked = []
            for _ in range(3):
                with worker(device.uri(), socket, pin, os.environ):
                    with trio.fail_after(10):
                        while lane.state is not LaneState.UP:  # noqa: ASYNC110 - another process
                            await trio.sleep(0.01)
                        asked += [
                            lane.submit(Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q"))
                            for _ in range(100)
                        ]
                        while not asked[-60].settled:  # noqa: ASYNC110 - killed in the middle
                            await trio.sleep(0.001)
            with worker(device.uri(), socket, pin, os.environ), trio.fail_after(10):
                assert len({await answer(pending) for pending in asked}) == 1
                assert await answer(lane.notices(0)) == []
        archive = next(tmp_path.glob("yubihsm-*.log")).stat().st_size  # noqa: ASYNC240
        assert archive > 300 * 32


def test_two_processes_of_one_folder_do_not_use_one_device(device: EmulatedDevice, tmp_path: Path) -> None:
    with lane_of(device, state=tmp_path), pytest.raises(Unavailable, match="one worker is enough"):
        lane_on(device, state=tmp_path)
    lane_on(device, state=tmp_path).close()


def test_two_daemons_on_one_device_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with emulated() as device:
        device.add_authentication_key()
        device.audit()
        initialise(device, tmp_path / "one")
        with lane_of(device, state=tmp_path / "one") as one, lane_of(device, state=tmp_path / "two") as two:
            mac(two)
            mac(one)
            told = [notice.text for notice in one.notices(0).result() if notice.alarm]
            assert any("openk's authentication key" in text for text in told)
