"""Workers die, hang and lie; callers of pure operations do not notice, and the rest hear it in time."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from openk_hsm.dialling import Limits
from openk_hsm.errors import Busy, HsmError, Interrupted, TimedOut, Unavailable
from openk_hsm.lane_health import LaneState
from openk_hsm.roots import AUDIT_KEY, ROOT, ROOT_DATA, ROOT_MAC
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Wrapped
from tests.support.tokens import Token, answer, lane_over, start_worker, worker

HANDOFF = 768 << 10


def mac(data: bytes = b"q", client: int = 0) -> Operation:
    return Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, data, client=client)


def sign(data: bytes, client: int = 0) -> Operation:
    return Operation(OpCode.SIGN, 64, AUDIT_KEY, Mechanism.EDDSA, data, client=client)


@pytest.fixture
def software(tmp_path: Path) -> tuple[str, Path]:
    """A software HSM's URI whose second sign of "hang" is fine again, and a PIN file (any will do)."""
    pin = tmp_path / "pin"
    pin.write_text("1234\n")
    return f"software:state={tmp_path}/state;hang=hang", pin


async def until(condition: Callable[[], bool]) -> None:
    """Look until it holds, for at most 10 s."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - states of other processes, which set no event here
            await trio.sleep(0.002)


async def test_kill_9_during_mixed_pure_load_costs_no_error(token: Token, tmp_path: Path) -> None:
    sockets = [tmp_path / "a", tmp_path / "b"]
    done = [0]

    def start(index: int) -> subprocess.Popen[bytes]:
        return start_worker(token.uri, sockets[index], token.pin_file, token.environment)

    processes = [start(0), start(1)]
    try:
        async with lane_over(sockets) as lane:
            await lane.ready()
            spec = KeySpec(Algorithm.P256, Purpose.SIGN)
            made = await answer(lane.generate(spec, ROOT, b"c"))
            key = KeyHandle(100, spec, Wrapped(ROOT, b"c", made.blob or b""))
            expected = await answer(lane.submit(mac(b"the same")))
            digest = hashlib.sha256(b"x").digest()
            stop = False

            async def load(client: int) -> None:
                while not stop:
                    assert await answer(lane.submit(mac(b"the same", client))) == expected
                    sign_one = Operation(OpCode.SIGN, 64, key, Mechanism.ECDSA, digest, client=client)
                    signed = await answer(lane.submit(sign_one))
                    assert isinstance(signed, bytes)
                    assert len(signed) == 64
                    into = memoryview(bytearray(16))
                    assert await answer(lane.submit(Operation(OpCode.RANDOM, 16, into=into, client=client))) == 16
                    done[0] += 1

            async with trio.open_nursery() as nursery:
                for client in range(1, 17):
                    nursery.start_soon(load, client)
                for round_ in range(6):
                    await until(lambda: lane.health().workers == 2)
                    await trio.sleep(0.05)
                    victim = round_ % 2
                    processes[victim].kill()
                    processes[victim].wait()
                    processes[victim] = await trio.to_thread.run_sync(start, victim)
                await until(lambda: lane.health().workers == 2)
                stop = True
            health = lane.health()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert health.restarts == 6
    assert done[0] > 100


async def test_requests_wait_while_the_only_worker_restarts(software: tuple[str, Path], tmp_path: Path) -> None:
    uri, pin = software
    socket = tmp_path / "s"
    with worker(uri, socket, pin, os.environ, "--allow-software") as first:
        async with lane_over([socket]) as lane:
            await lane.ready()
            expected = await answer(lane.submit(mac()))
            first.kill()
            first.wait()
            await until(lambda: lane.state is LaneState.RESTARTING)
            waiting = [lane.submit(mac()) for _ in range(300)]
            assert not any(pending.settled for pending in waiting)
            with worker(uri, socket, pin, os.environ, "--allow-software"):
                for pending in waiting:
                    assert await answer(pending) == expected
                assert lane.state is LaneState.UP


async def test_a_hung_worker_dies_of_its_alarm_and_the_request_is_done_again(
    software: tuple[str, Path], tmp_path: Path
) -> None:
    uri, pin = software
    socket = tmp_path / "s"
    with worker(uri, socket, pin, os.environ, "--allow-software") as first:
        async with lane_over([socket], limits=Limits(handoff_bytes=HANDOFF, hang=0.3)) as lane:
            await lane.ready()
            pendings = [lane.submit(mac()), lane.submit(sign(b"hang here")), lane.submit(mac())]
            await until(lambda: first.poll() is not None)
            assert first.returncode == -signal.SIGALRM
            with worker(uri, socket, pin, os.environ, "--allow-software"):
                answers = [await answer(pending) for pending in pendings]
    assert answers[0] == answers[2]
    assert isinstance(answers[1], bytes)
    assert len(answers[1]) == 64


async def test_an_operation_that_kills_workers_is_given_up_and_its_neighbours_live(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("1234")
    uri = "software:hang=hang"  # without state each new worker hangs again
    socket = tmp_path / "s"

    def start() -> subprocess.Popen[bytes]:
        return start_worker(f"{uri};state={tmp_path}/state", socket, pin, os.environ, "--allow-software")

    process = start()
    async with lane_over([socket], limits=Limits(handoff_bytes=HANDOFF, hang=0.2)) as lane:
        await lane.ready()
        killer = lane.submit(sign(b"hang here", client=7))
        neighbours = [lane.submit(mac()) for _ in range(20)]
        for _ in range(Limits().deaths):
            with trio.fail_after(10):
                while process.poll() is None:  # noqa: ASYNC110 - a process sets no event
                    await trio.sleep(0.002)
            (tmp_path / "state.hung").unlink()
            process = start()
        with trio.fail_after(5):
            with pytest.raises(Interrupted):
                await answer(killer)
            assert len({await answer(pending) for pending in neighbours}) == 1
            assert await answer(lane.submit(mac()))
            with pytest.raises(Interrupted):  # the same again is refused unseen
                await answer(lane.submit(sign(b"hang here", client=7)))
            other, same_shape = sign(b"hang hair", client=7), sign(b"fine here", client=8)
            assert await answer(lane.submit(same_shape))
            with pytest.raises(Interrupted):
                await answer(lane.submit(other))
        assert lane.health().restarts == 3
        assert (lane.health().quarantined, lane.health().rejected) == (1, 2)
    process.kill()
    process.wait()


async def test_deadlines_hold_when_no_worker_comes(tmp_path: Path) -> None:
    limits = Limits(handoff_bytes=HANDOFF, deadline=0.3, breaker=60)
    async with lane_over([tmp_path / "nobody"], limits=limits) as lane:
        assert lane.state is LaneState.STARTING
        with trio.fail_after(2), pytest.raises(TimedOut):
            await answer(lane.submit(mac()))
        with trio.fail_after(2), pytest.raises(TimedOut):
            await answer(lane.objects())


async def test_the_breaker_answers_at_once(tmp_path: Path) -> None:
    limits = Limits(handoff_bytes=HANDOFF, breaker=0.2)
    async with lane_over([tmp_path / "nobody"], limits=limits) as lane:
        waiting = lane.submit(mac())
        with trio.fail_after(2), pytest.raises(Unavailable):
            await answer(waiting)
        assert lane.state is LaneState.DOWN
        for pending in (lane.submit(mac()), lane.objects(), lane.info()):
            assert pending.settled
            with pytest.raises(Unavailable) as refused:
                pending.result()
            assert refused.value.retry_after
        with pytest.raises(Unavailable):
            await lane.ready()


async def test_the_breaker_closes_again_without_a_restart(software: tuple[str, Path], tmp_path: Path) -> None:
    uri, pin = software
    socket = tmp_path / "s"
    async with lane_over([socket], limits=Limits(handoff_bytes=HANDOFF, breaker=0.1)) as lane:
        with pytest.raises(Unavailable):
            await answer(lane.submit(mac()))
        with worker(uri, socket, pin, os.environ, "--allow-software"), trio.fail_after(5):
            await until(lambda: lane.state is LaneState.UP)
            assert await answer(lane.submit(mac()))


async def test_queues_are_bounded_for_each_client(tmp_path: Path) -> None:
    limits = Limits(handoff_bytes=HANDOFF, per_client=5, total=8)
    async with lane_over([tmp_path / "nobody"], limits=limits) as lane:
        first = [lane.submit(mac(client=1)) for _ in range(6)]
        assert [pending.settled for pending in first] == [False] * 5 + [True]
        with pytest.raises(Busy):
            first[5].result()
        second = [lane.submit(mac(client=2)) for _ in range(4)]
        assert [pending.settled for pending in second] == [False] * 3 + [True]
        assert lane.health().queued == 8


async def test_what_waits_fails_when_the_daemon_stops(tmp_path: Path) -> None:
    async with lane_over([tmp_path / "nobody"]) as lane:
        waiting = [lane.submit(mac()), lane.objects()]
        info = lane.info()
    for pending in (*waiting, info):
        with pytest.raises(Unavailable):
            pending.result()


async def test_many_wrapped_keys_are_evicted_and_loaded_again(software: tuple[str, Path], tmp_path: Path) -> None:
    uri, pin = software
    socket = tmp_path / "s"
    spec = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
    with worker(uri, socket, pin, os.environ, "--allow-software"):
        async with lane_over([socket], limits=Limits(handoff_bytes=HANDOFF, loaded_keys=10)) as lane:
            made = [await answer(lane.generate(spec, ROOT, b"c")) for _ in range(40)]
            keys = [KeyHandle(100 + at, spec, Wrapped(ROOT, b"c", one.blob or b"")) for at, one in enumerate(made)]

            async def use(key: KeyHandle) -> object:
                return await answer(lane.submit(Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, b"q")))

            first = [await use(key) for key in keys]
            assert len(set(first)) == 40
            assert [await use(key) for key in keys] == first
            (link,) = lane._links
            assert link.loaded <= 12


async def test_long_operations_of_one_client_do_not_hold_up_another(token: Token, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    spec = KeySpec(Algorithm.RSA_2048, Purpose.SIGN)
    with worker(token.uri, socket, token.pin_file, token.environment):
        async with lane_over([socket]) as lane:
            made = await answer(lane.generate(spec, ROOT, b"c"))
            key = KeyHandle(100, spec, Wrapped(ROOT, b"c", made.blob or b""))
            slow = [
                lane.submit(Operation(OpCode.SIGN, 256, key, Mechanism.RSA_PSS_SHA_256, bytes(32), client=1))
                for _ in range(200)
            ]
            await trio.lowlevel.checkpoint()
            assert len(await answer(lane.submit(mac(client=2))) or b"") == 32  # type: ignore[arg-type]  # bytes
            assert sum(pending.settled for pending in slow) < 30
            for pending in slow:
                await answer(pending)


async def test_a_lying_worker_is_given_up(tmp_path: Path) -> None:
    """Vendor code runs in the worker: whatever it says, the daemon lives."""
    import socket as sockets  # noqa: PLC0415

    from openk_hsm import frames  # noqa: PLC0415
    from openk_hsm.software import SoftwareBackend  # noqa: PLC0415

    info = SoftwareBackend(allow=True).open(memoryview(bytearray(64)), 0, lambda: memoryview(b""))
    lies = [
        b"",
        b"A",
        b"?" * 8,
        frames.HEADER.pack(frames.ANSWERS, 0, 1, 0) + frames.ROW.pack(0xFFFFFF00, 5),
        frames.HEADER.pack(frames.ANSWERS, 0, 1, 0) + b"\0\0\0",
        frames.HEADER.pack(frames.RESULT, 0, 0, 0) + b"\xc1",
        frames.HEADER.pack(frames.ERROR, 0, 0, 0) + b"\x93\x01\x02\x03",
    ]
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
    with listener:
        listener.bind(str(tmp_path / "liar"))
        listener.listen()
        async with lane_over([tmp_path / "liar"]) as lane:
            for lie in lies:
                connection = (await trio.to_thread.run_sync(listener.accept))[0]
                with connection:
                    connection.recv(100)
                    connection.send(frames.pack_body(frames.READY, frames.info_to_wire(info)))
                    with trio.fail_after(5):
                        await until(lambda: lane.state is LaneState.UP)
                        if lie:
                            connection.send(lie)
                        else:
                            connection.shutdown(sockets.SHUT_RDWR)
                        await until(lambda: lane.state is not LaneState.UP)
            assert lane.health().restarts == len(lies)


async def test_another_token_behind_the_same_socket_is_refused(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("1234")
    socket = tmp_path / "s"
    async with lane_over([socket], limits=Limits(handoff_bytes=HANDOFF, breaker=2.0)) as lane:
        with worker(f"software:state={tmp_path}/one", socket, pin, os.environ, "--allow-software"):
            await lane.ready()
        with worker(f"software:state={tmp_path}/two", socket, pin, os.environ, "--allow-software"), trio.fail_after(5):
            heard: set[str] = set()

            def untrusted() -> bool:
                """The breaker may have opened before the second worker was there to be refused."""
                if lane.state is LaneState.DOWN:
                    with pytest.raises(HsmError) as refused:
                        lane.submit(mac()).result()
                    heard.add(refused.value.code)
                return "hsm.untrusted" in heard

            await until(untrusted)
            assert heard <= {"hsm.unavailable", "hsm.untrusted"}


async def test_nothing_stays_in_the_hand_off_region(token: Token, tmp_path: Path) -> None:
    """Plaintexts that went in, plaintexts and random bytes that came out, of ordinary and of very large operations."""
    socket = tmp_path / "s"
    needle = b"needle-in-a-region"
    with worker(token.uri, socket, token.pin_file, token.environment):
        async with lane_over([socket]) as lane:
            await lane.ready()
            (link,) = lane._links
            for size in (100, 300_000):
                plain = needle * (size // len(needle))
                seal = Operation(OpCode.ENCRYPT, size + 16, ROOT_DATA, Mechanism.AES_GCM, plain, b"", bytes(12))
                sealed = await answer(lane.submit(seal))
                assert isinstance(sealed, bytes)
                into = memoryview(bytearray(size))
                length = await answer(
                    lane.submit(
                        Operation(OpCode.DECRYPT, size, ROOT_DATA, Mechanism.AES_GCM, sealed, b"", bytes(12), into=into)
                    )
                )
                assert bytes(into[: int(length)]) == plain
            await answer(lane.submit(Operation(OpCode.RANDOM, 500, into=memoryview(bytearray(500)))))
            bad = Operation(OpCode.DECRYPT, 600_000, ROOT_DATA, Mechanism.AES_GCM, sealed[:-1] + b"x", b"", bytes(12))
            with pytest.raises(HsmError):
                await answer(lane.submit(bad))
            assert not any(link._view)
