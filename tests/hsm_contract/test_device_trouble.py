"""Every code that a token answers leads to what the code table says: new sessions, a fresh module, or an error for the
caller; and never to another try of the PIN."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError, Unavailable
from openk_hsm.lane import WorkerLane, open_lane
from openk_hsm.lane_health import LaneState
from openk_hsm.pkcs11 import codes
from openk_hsm.roots import ROOT, ROOT_DATA, ROOT_MAC
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Wrapped
from tests.support.outage import Device, compile_outage
from tests.support.tokens import Token, answer, start_worker

HMAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
RELOADS = {
    0x002: "CKR_HOST_MEMORY",
    0x030: "CKR_DEVICE_ERROR",
    0x032: "CKR_DEVICE_REMOVED",
    0x0E0: "CKR_TOKEN_NOT_PRESENT",
    0x0E1: "CKR_TOKEN_NOT_RECOGNIZED",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x1A0: "CKR_MUTEX_BAD",
}
SESSIONS = {
    0x060: "CKR_KEY_HANDLE_INVALID",
    0x090: "CKR_OPERATION_ACTIVE",
    0x091: "CKR_OPERATION_NOT_INITIALIZED",
    0x0B0: "CKR_SESSION_CLOSED",
    0x0B3: "CKR_SESSION_HANDLE_INVALID",
    0x101: "CKR_USER_NOT_LOGGED_IN",
}
FAILS = {
    0x001: "hsm.refused",  # CKR_CANCEL
    0x020: "key.input_invalid",  # CKR_DATA_INVALID
    0x031: "hsm.full",  # CKR_DEVICE_MEMORY
    0x054: "key.unsupported",  # CKR_FUNCTION_NOT_SUPPORTED
    0x068: "key.input_invalid",  # CKR_KEY_FUNCTION_NOT_PERMITTED
    0x070: "key.unsupported",  # CKR_MECHANISM_INVALID
}
AT_ONCE = ("--reload-burst", "100")
DOUBTFUL = (0x005, 0x006, 0x8000_0001)  # CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, a vendor's own


def mac(key: KeyHandle = ROOT_MAC) -> Operation:
    return Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, b"q", client=1)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(15):
        while not condition():  # noqa: ASYNC110 - states of other processes, which set no event here
            await trio.sleep(0.002)


@dataclass
class Setting:
    """A lane to a worker on the device. `starts`: processes so far; a new one is started whenever one ends."""

    device: Device
    lane: WorkerLane
    starts: list[subprocess.Popen[bytes]]

    async def keep_running(self, *options: str) -> None:
        socket = self.device.token.folder / "s"
        while True:
            if not self.starts or self.starts[-1].poll() is not None:
                begin = lambda: start_worker(  # noqa: E731 - for the thread
                    self.device.uri, socket, self.device.token.pin_file, self.device.environment, *options
                )
                self.starts.append(await trio.to_thread.run_sync(begin))
            await trio.sleep(0.02)


@pytest.fixture(scope="module")
def outage_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_outage(tmp_path_factory.mktemp("outage"))


@pytest.fixture
def device(outage_module: Path, token: Token) -> Device:
    return Device(outage_module, token)


@asynccontextmanager
async def setting_of(device: Device, *options: str, **limits: float) -> AsyncGenerator[Setting]:
    starts: list[subprocess.Popen[bytes]] = []
    try:
        async with trio.open_nursery() as nursery:
            socket = str(device.token.folder / "s")
            chosen = Limits(handoff_bytes=256 << 10, **limits)  # type: ignore[arg-type]  # numbers for numbers
            setting = Setting(device, open_lane(nursery, "test", [socket], limits=chosen), starts)
            nursery.start_soon(setting.keep_running, *options)
            await setting.lane.ready()
            yield setting
            nursery.cancel_scope.cancel()
    finally:
        for process in starts:
            process.kill()
            process.wait()


async def wrapped_key(lane: WorkerLane) -> KeyHandle:
    made = await answer(lane.generate(HMAC, ROOT, b"c"))
    return KeyHandle(100, HMAC, Wrapped(ROOT, b"c", made.blob or b""))


async def test_the_table_on_a_real_worker(device: Device) -> None:
    """One worker through all of it: nobody but whoever made a bad request hears anything."""
    async with setting_of(device, *AT_ONCE) as setting:
        lane, starts = setting.lane, setting.starts
        key = await wrapped_key(lane)
        expected = await answer(lane.submit(mac(key)))
        for code, told in FAILS.items():
            device.answer(code, 1)
            with pytest.raises(HsmError) as refused:
                await answer(lane.submit(mac(key)))
            assert (refused.value.code, refused.value.device) == (told, codes.name_of(code))
        for code in DOUBTFUL:
            device.answer(code, 1)  # the known answer is right: the request is to blame
            with pytest.raises(HsmError) as refused:
                await answer(lane.submit(mac(key)))
            assert refused.value.code == "hsm.refused"
        assert (len(starts), lane.health().restarts) == (1, 0)
        for code in RELOADS:
            before = len(starts)
            device.answer(code, 1)
            assert await answer(lane.submit(mac(key))) == expected, hex(code)
            assert len(starts) == before + 1, hex(code)
        for code in DOUBTFUL:
            before = len(starts)
            device.answer(code, 2)  # the known answer is wrong too: the device is in trouble
            assert await answer(lane.submit(mac(key))) == expected, hex(code)
            assert len(starts) == before + 1, hex(code)
        assert lane.health().quarantined == 0


@pytest.mark.parametrize("code", SESSIONS, ids=SESSIONS.get)
async def test_lost_sessions_are_opened_anew_in_the_same_process(device: Device, code: int) -> None:
    async with setting_of(device) as setting:
        lane = setting.lane
        key = await wrapped_key(lane)
        expected = await answer(lane.submit(mac(key)))
        device.answer(code, 1)
        assert await answer(lane.submit(mac(key))) == expected
        assert len(setting.starts) == 1
        device.answer(code, 1)  # so soon again: a fresh module
        assert await answer(lane.submit(mac(key))) == expected
        assert len(setting.starts) == 2


@pytest.mark.parametrize("code", [0x030, 0x0B3], ids=["fresh module", "new sessions"])
async def test_answers_before_the_trouble_are_read_before_the_region_is_wiped(device: Device, code: int) -> None:
    """The worker ends, or parts from us, while answers of its last batch are not read yet: they stay what they are."""
    async with setting_of(device) as setting:
        lane = setting.lane
        expected = await answer(lane.submit(mac()))
        for _ in range(3):
            device.answer(code, 1, after=30)
            waiting = [lane.submit(mac()) for _ in range(60)]
            lane.pump()
            time.sleep(0.3)  # noqa: ASYNC251 - the lane must not read meanwhile
            assert {await answer(pending) for pending in waiting} == {expected}


async def test_answers_of_a_worker_that_was_given_up_are_not_read(device: Device) -> None:
    """It wipes the region when it sees us go."""
    async with setting_of(device) as setting:
        lane = setting.lane
        expected = await answer(lane.submit(mac()))
        waiting = [lane.submit(mac()) for _ in range(60)]
        lane.pump()
        time.sleep(0.2)  # noqa: ASYNC251 - it has answered, and the lane has not read it
        lane.give_up()
        time.sleep(0.2)  # noqa: ASYNC251 - it has wiped
        assert {await answer(pending) for pending in waiting} == {expected}


async def test_a_device_that_was_reset_costs_nothing(device: Device) -> None:
    async with setting_of(device) as setting:
        lane = setting.lane
        key = await wrapped_key(lane)
        expected = await answer(lane.submit(mac(key)))
        device.reset()
        assert {await answer(lane.submit(mac(key))) for _ in range(5)} == {expected}
        assert len(setting.starts) == 1


async def test_idle_sessions_are_kept_alive_and_a_sick_device_is_found_while_idle(device: Device) -> None:
    async with setting_of(device, keep_alive=0.3) as setting:
        key = await wrapped_key(setting.lane)
        await trio.sleep(1.5)
        assert (len(setting.starts), setting.lane.health().restarts) == (1, 0)
        device.reset()
        await until(lambda: setting.lane.health().restarts == 1)
        await until(lambda: setting.lane.state is LaneState.UP)
        assert await answer(setting.lane.submit(mac(key)))
        assert len(setting.starts) == 1


async def test_reloads_are_paced_and_go_on_for_ever(device: Device) -> None:
    """The bucket holds two; then one comes every second, though workers are started again at once."""
    async with setting_of(
        device, "--reload-burst", "2", "--reload-seconds", "1", deadline=60.0, breaker=60.0
    ) as setting:
        assert await answer(setting.lane.submit(mac()))
        device.pull_out()
        waiting = setting.lane.submit(mac())
        await until(lambda: len(setting.starts) >= 3)
        begun, before = trio.current_time(), len(setting.starts)
        await until(lambda: len(setting.starts) >= before + 3)
        assert trio.current_time() - begun > 2.0
        assert not waiting.settled
        assert setting.lane.health().refusal == "hsm.token_missing"
        device.plug_in()
        with trio.fail_after(10):
            assert await answer(waiting)


async def test_a_device_that_is_gone_for_good_is_told_at_once(device: Device) -> None:
    async with setting_of(device, breaker=3.0) as setting:
        device.pull_out()
        with pytest.raises(HsmError):
            await answer(setting.lane.submit(mac()))
        await until(lambda: setting.lane.state is LaneState.DOWN)
        pending = setting.lane.submit(mac())
        assert pending.settled
        with pytest.raises(HsmError) as refused:
            pending.result()
        assert refused.value.code in {"hsm.token_missing", Unavailable.code}
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 0
        device.plug_in()
        await until(lambda: setting.lane.state is LaneState.UP)
        assert await answer(setting.lane.submit(mac()))


async def test_the_pin_is_never_at_stake(device: Device) -> None:
    """After all kinds of trouble the token has counted no wrong PIN."""
    async with setting_of(device, *AT_ONCE) as setting:
        for code in (0x030, 0x0B3, 0x005, 0x101, 0x0E0):
            device.answer(code, 2)
            assert await answer(setting.lane.submit(mac()))
    shown = subprocess.run(  # noqa: ASYNC221 - nothing else runs now
        [sys.executable, "-m", "openk_hsm.cli", "tokens"],
        env=device.token.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "PIN" not in shown, shown
    assert not list(device.token.folder.glob("pin-*.latch"))


def test_data_keys_of_the_root_are_asked(device: Device) -> None:
    """The device under test is the real thing behind the shim."""
    assert ROOT_DATA.spec.algorithm is Algorithm.AES_256_GCM
    assert device.answers_left == 0


@pytest.fixture(autouse=True)
def nothing_is_left(device: Device) -> Iterator[None]:
    yield
    device.plug_in()
