"""Sealed workers: logged out, and so is whatever is started in their place, until an operator unseals."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from openk_hsm import lane_seal
from openk_hsm.errors import HsmError, Sealed, WrongPin
from openk_hsm.lane import WorkerLane
from openk_hsm.lane_health import LaneState
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Mechanism, OpCode, Operation
from tests.support.tokens import Token, answer, lane_over, run_cli, start_worker

RETRY = 75


def mac() -> Operation:
    return Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, b"q")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - states of other processes, which set no event here
            await trio.sleep(0.005)


class Restarter:
    """What a unit or the monitor does: a worker that ended is started again, when asked to."""

    def __init__(self, token: Token, socket: Path) -> None:
        self.token = token
        self.socket = socket
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.process = start_worker(self.token.uri, self.socket, self.token.pin_file, self.token.environment)
        return self.process

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None)
        return self.process.wait()


@pytest.fixture
def started(token: Token, tmp_path: Path) -> Iterator[Restarter]:
    restarter = Restarter(token, tmp_path / "socket")
    yield restarter
    restarter.process.kill()
    restarter.process.wait()


async def seal(lane: WorkerLane, started: Restarter) -> None:
    lane.seal()
    assert await started.ended() == RETRY


async def test_a_sealed_worker_ends_and_its_successor_waits_without_the_pin(started: Restarter) -> None:
    async with lane_over([started.socket]) as lane:
        await lane.ready()
        expected = await answer(lane.submit(mac()))
        flying = [lane.submit(mac()) for _ in range(50)]
        await seal(lane, started)
        for pending in flying:
            with pytest.raises(Sealed):
                await answer(pending)
        assert lane.health().state is LaneState.SEALED
        pin = started.token.pin_file.read_bytes()
        started.token.pin_file.unlink()  # whoever reads it now fails
        started.start()
        await until(lambda: lane.logged_out == 1)
        with pytest.raises(Sealed):
            await answer(lane.submit(mac()))
        with pytest.raises(WrongPin):
            await answer(lane.unseal())
        assert lane.health().state is LaneState.SEALED
        assert await started.ended() == RETRY  # a fresh process for the next try
        started.token.pin_file.write_bytes(pin)
        started.start()
        info = await answer(lane.unseal())
        with pytest.raises(Sealed):  # logged in, and nothing is served yet
            await answer(lane.submit(mac()))
        lane.admit()
        assert lane.health().state is LaneState.UP
        assert await answer(lane.submit(mac())) == expected
        assert info.identity == (await answer(lane.info())).identity


async def test_a_lane_that_begins_sealed_seals_its_workers(started: Restarter) -> None:
    async with trio.open_nursery() as nursery:
        lane = WorkerLane("test", [str(started.socket)], sealed=True)
        nursery.start_soon(lane.run)
        with pytest.raises(Sealed):
            await lane.ready()
        assert await started.ended() == RETRY
        started.start()
        await answer(lane.unseal())
        lane.admit()
        assert len(await answer(lane.submit(mac()))) == 32  # type: ignore[arg-type]  # bytes: there was no `into`
        nursery.cancel_scope.cancel()


async def test_another_daemon_finds_the_worker_sealed(started: Restarter) -> None:
    async with lane_over([started.socket]) as lane:
        await lane.ready()
        await seal(lane, started)
    started.start()
    async with lane_over([started.socket]) as other:
        with pytest.raises(Sealed):
            await other.ready()
        assert other.health().state is LaneState.SEALED


async def test_an_operator_takes_the_seal_off_without_a_daemon(started: Restarter) -> None:
    async with lane_over([started.socket]) as lane:
        await lane.ready()
        await seal(lane, started)
    state = str(started.socket.parent)
    started.start()
    assert "the seal is gone" in run_cli("unseal", "--uri", started.token.uri, "--state", state)
    assert await started.ended() == RETRY  # it notices
    started.start()
    async with lane_over([started.socket]) as lane:
        await lane.ready()
    assert "no seal" in run_cli("unseal", "--uri", started.token.uri, "--state", state)


async def test_unsealing_without_a_worker_fails_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_seal, "WITHIN", 0.3)
    async with trio.open_nursery() as nursery:
        lane = WorkerLane("test", [str(tmp_path / "nobody")], sealed=True)
        nursery.start_soon(lane.run)
        with pytest.raises(HsmError, match="no worker"):
            await answer(lane.unseal())
        assert lane.health().state is LaneState.SEALED
        nursery.cancel_scope.cancel()
