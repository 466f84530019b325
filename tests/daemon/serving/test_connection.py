"""Connections over real sockets: pipelining, bounds, clients that are slow, vanish or send garbage; and after each of
them every lease is back."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
import trio
import trio.lowlevel

from openk_daemon.call import Call, Outcome, Sealed
from openk_daemon.hierarchy.refusals import refusing
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending, failed
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool
from tests.daemon.serving.kit import Client, Core, frame


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    made = Core(tmp_path, message_seconds=0.4)
    async with made.serve():
        yield made
        made.let_go()
        await made.until(lambda: made.pool.in_use == 0)
    gc.collect()
    assert made.pool.counters().leaked == 0


def held(core: Core, method: str = "random.bytes") -> list[Pending[None]]:
    """Make `method` answer 4 KiB of locked memory, each call when its Pending in the list is resolved."""
    gates: list[Pending[None]] = []

    async def wait(call: Call) -> Outcome:
        gate: Pending[None] = Pending()
        gates.append(gate)
        await gate
        lease = core.pool.lease(4096, call.peer.caller.uid)
        return Outcome(({"bytes": Sealed(lease, 4096)},))

    core.handlers[method] = wait
    return gates


def opening(core: Core, size: int = 64 << 10) -> None:
    """random.bytes answers at once with `size` zeros of locked memory."""

    async def make(_call: Call) -> Outcome:
        return Outcome(({"bytes": Sealed(core.pool.lease(size), size)},))

    core.handlers["random.bytes"] = make


async def test_many_in_one_send_are_all_answered(core: Core) -> None:
    client = core.client()
    await client.send(b"".join(frame(n, "system.ping", echo=bytes([n])) for n in range(50)))
    answers = {(await client.read())[0]: n for n in range(50)}
    assert sorted(answers) == list(range(50))  # type: ignore[type-var]  # msgids are integers


async def test_pieces_of_any_size_make_the_same_requests(core: Core) -> None:
    client = core.client()
    data = b"".join(frame(n, "system.ping", echo=bytes([n]) * n * 30) for n in range(100))
    chance = random.Random(7)
    at = 0
    while at < len(data):
        step = chance.choice((1, 3, 50, 700, 17000))
        await client.send(data[at : at + step])
        await trio.lowlevel.checkpoint()
        at += step
    for _ in range(100):
        msgid, error, result = await client.read()
        assert isinstance(msgid, int)
        assert (error, result) == (None, {"echo": bytes([msgid]) * msgid * 30})


async def test_a_message_of_a_mebibyte_grows_with_its_bytes(core: Core) -> None:
    core.custody.call("vault.create", vault="v")
    core.custody.call("key.create", key="v/k", algorithm="hmac-sha-256")
    client = core.client()
    data = frame(9, "key.mac", key="v/k", input=bytes(900_000))
    await client.send(data[:100])
    await core.until(lambda: core.pool.in_use > 0)
    await trio.sleep(0.02)
    assert core.pool.in_use < 40_000  # whatever the header announces
    await client.send(data[100:])
    msgid, error, _ = await client.read()
    assert (msgid, error) == (9, None)


async def test_requests_leave_nothing_for_the_collector(core: Core) -> None:
    """A cycle in each request (a closure that names itself is enough) made the collector a fifth of the hot path."""
    core.ledger.hold = True  # flows that really wait
    client = core.client()
    rounds, together = 10, 50

    async def serve() -> None:
        for _ in range(rounds):
            await client.send(b"".join(frame(n, "system.ping", echo=b"x") for n in range(together)))
            await core.until(lambda: len(core.ledger.waiting) == together)
            core.ledger.let_go()
            for _ in range(together):
                await client.read()

    await serve()
    gc.collect()
    gc.disable()
    try:
        await serve()
        assert gc.collect() < rounds * together / 2  # trio's and the test's own few
    finally:
        gc.enable()
        core.ledger.hold = False


@pytest.mark.parametrize("kind", [HsmError, KeyError])  # what is expected, and a mistake of ours
async def test_what_fails_keeps_no_locked_memory(core: Core, kind: type[Exception]) -> None:
    """The way of an error holds views of the request, and the Pending that it settled holds the error: with the HSM
    down, 300 refusals took all locked memory, and nobody was answered any more."""

    async def fail(call: Call) -> Outcome:
        view = call.arguments.view("echo")  # in the way that the error comes
        pending: Pending[Outcome] = failed(kind(f"after {len(view)} bytes"))
        return await pending

    core.handlers["system.ping"] = refusing(fail)
    client = core.client()
    gc.collect()
    gc.disable()
    try:
        kept: list[int] = []
        for number in range(20):
            _, error, _ = await client.call("system.ping", number, echo=b"x" * 64)
            assert error is not None
            kept.append(core.pool.counters().quarantined)
        assert max(kept) == kept[0], "the one before is swept when the next comes"
    finally:
        gc.enable()


async def test_answers_leave_as_they_are_ready(core: Core) -> None:
    gates = held(core)
    client = core.client()
    await client.send(frame(1, "random.bytes", length=8) + frame(2, "random.bytes", length=8))
    await core.until(lambda: len(gates) == 2)
    gates[1].resolve(None)
    assert (await client.read())[0] == 2
    gates[0].resolve(None)
    assert (await client.read())[0] == 1


async def test_an_idle_connection_holds_no_locked_memory(core: Core) -> None:
    clients = [core.client() for _ in range(20)]
    for client in clients:
        assert (await client.call("system.ping"))[1] is None
    assert core.pool.in_use == 0
    assert core.server.connections == 20


async def test_at_the_bound_it_stops_reading_and_then_goes_on(core: Core) -> None:
    core.ledger.hold = True
    client = core.client()
    other = core.client()
    await client.send(b"".join(frame(n, "system.ping") for n in range(200)))
    await core.until(lambda: len(core.ledger.waiting) == 64)
    await trio.sleep(0.02)
    assert len(core.ledger.waiting) == 64
    await other.send(frame(1000, "system.ping"))  # others are served meanwhile
    await core.until(lambda: len(core.ledger.waiting) == 65)
    core.ledger.hold = False
    core.let_go()
    found = {(await client.read())[0] for _ in range(200)}
    assert found == set(range(200))
    assert (await other.read())[0] == 1000


async def test_one_answer_lets_one_more_request_in(core: Core) -> None:
    core.ledger.hold = True
    client = core.client()
    await client.send(b"".join(frame(n, "system.ping") for n in range(70)))
    await core.until(lambda: len(core.ledger.waiting) == 64)
    core.let_go(1)
    await core.until(lambda: len(core.ledger.waiting) == 64)
    assert (await client.read())[0] == 0
    core.ledger.hold = False
    core.let_go()
    assert {(await client.read())[0] for _ in range(69)} == set(range(1, 70))


async def test_a_half_closed_connection_gets_its_answers(core: Core) -> None:
    core.ledger.hold = True
    client = core.client()
    await client.send(b"".join(frame(n, "system.ping") for n in range(100)))
    client.half_close()
    await core.until(lambda: len(core.ledger.waiting) == 64)
    core.ledger.hold = False
    core.let_go()
    assert sorted(str(answer[0]) for answer in await client.read_all()) == sorted(map(str, range(100)))
    await core.until(lambda: core.server.connections == 0)


async def test_a_client_that_vanishes_leaves_nothing_behind(core: Core) -> None:
    core.ledger.hold = True
    for half in (b"", frame(8, "system.ping", echo=bytes(3000))[:2000]):
        client = core.client()
        await client.send(frame(7, "random.bytes", length=100) + half)
        await core.until(lambda: len(core.ledger.waiting) == 1)
        client.close()
        await core.until(lambda: core.server.connections == 0)
        core.let_go()
        assert core.pool.in_use == 0


async def test_a_client_that_vanishes_in_its_reply_leaves_nothing_behind(core: Core) -> None:
    opening(core)
    client = core.client()
    await client.send(b"".join(frame(n, "random.bytes", length=8) for n in range(20)))
    await core.until(lambda: core.pool.in_use > 300_000)
    client.close()
    await core.until(lambda: core.server.connections == 0)
    assert core.pool.in_use == 0


async def test_a_slow_reader_costs_a_bounded_amount_and_nobody_else(core: Core) -> None:
    opening(core, 8 << 10)
    slow = core.client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, slow, 3000)
        await core.until(lambda: core.pool.in_use > 500_000)
        other = core.client()
        for n in range(30):
            assert (await other.call("system.ping", n))[1] is None
            assert core.pool.in_use < 1200 << 10  # 64 replies, each in a slot of 16 KiB, and a buffer
        await core.until(lambda: core.server.connections == 1)  # it took too long to take its replies
        nursery.cancel_scope.cancel()


async def flood(client: Client, count: int) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        await client.send(b"".join(frame(n, "random.bytes", length=8) for n in range(count)))


async def test_a_reader_that_is_slow_but_reads_gets_all_of_it(core: Core) -> None:
    opening(core, 8 << 10)
    client = core.client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, client, 500)
        for _ in range(500):
            _, error, result = await client.read()
            assert error is None
            assert isinstance(result, dict)
            assert result["bytes"] == bytes(8 << 10)


async def test_a_slow_sender_is_told_and_cut_off(core: Core) -> None:
    client = core.client()
    await client.send(frame(77, "system.ping", echo=bytes(1000))[:500])
    ((msgid, error, _),) = await client.read_all()
    assert msgid == 77
    assert isinstance(error, list)
    assert error[1].startswith("request.timeout: ")
    await core.until(lambda: core.server.connections == 0)
    assert core.pool.in_use == 0


async def test_a_message_for_which_there_is_no_memory_is_given_up_in_time(core: Core) -> None:
    client = core.client()
    data = frame(78, "key.mac", key="v/k", input=bytes(900_000))
    await client.send(data[:16384])
    await core.until(lambda: core.pool.in_use > 0)
    _, hoard = spend(core.pool)
    await client.send(data[16384:20000])
    ((msgid, error, _),) = await client.read_all()
    assert msgid == 78
    assert "daemon.overloaded" in str(error)
    for lease in hoard:
        lease.release()
    await core.until(lambda: core.pool.in_use == 0)


async def test_one_user_cannot_take_the_memory_of_all(core: Core) -> None:
    clients = [core.client() for _ in range(6)]
    data = frame(78, "key.mac", key="v/k", input=bytes(900_000))

    async def send(client: Client) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            await client.send(data[:-1])

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(send, client)
        await core.until(lambda: core.metrics.reads_paused > 0)
        assert core.pool.in_use <= core.pool.capacity // 2
        core.pool.lease(1 << 20).release()  # the daemon's own work goes on


async def test_a_message_that_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    core = Core(tmp_path, pool_bytes=1 << 20, message_seconds=3)
    async with core.serve():
        client = core.client()
        with suppress(BrokenPipeError, ConnectionResetError):
            await client.send(frame(79, "key.mac", key="v/k", input=bytes(900_000)))
        ((msgid, error, _),) = await client.read_all()
        assert msgid == 79
        assert "request.too_large" in str(error)
        await core.until(lambda: core.pool.in_use == 0)


async def test_replies_do_not_stop_the_clock_of_a_message_that_does_not_come(core: Core) -> None:
    opening(core, 64 << 10)
    client = core.client()
    requests = b"".join(frame(n, "random.bytes", length=8) for n in range(20))
    await client.send(requests + frame(99, "system.ping", echo=bytes(1000))[:500])
    await trio.sleep(0.1)  # the replies are more than the socket takes
    answers = await client.read_all()
    assert [answer[0] for answer in answers] == [*range(20), 99]
    assert "request.timeout" in str(answers[-1][1])


async def test_trickling_does_not_prolong_the_time_a_message_has(core: Core) -> None:
    client = core.client()
    data = frame(77, "system.ping", echo=bytes(1000))
    sent = 0
    with suppress(BrokenPipeError, ConnectionResetError), trio.fail_after(3):
        for sent in range(len(data) - 1):
            await client.send(data[sent : sent + 1])
            await trio.sleep(0.02)
    assert 5 < sent < 100


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xc1",
        b"\x94\x00\x01\xc1",
        b"\x93\x00\x01\xa1a",
        b"\x94\x00\xff\xa1a\x90",
        bytes(64),
    ],
    ids=["http", "no value", "inside", "three", "msgid", "zeros"],
)
async def test_garbage_closes_only_its_own_connection(core: Core, garbage: bytes) -> None:
    other = core.client()
    assert (await other.call("system.ping"))[1] is None
    client = core.client()
    await client.send(frame(1, "system.ping") + garbage)
    answers = await client.read_all()
    assert answers[0] == [1, None, {}]
    if len(answers) > 1:  # the msgid could be read
        assert answers[1][0] == 1
        assert "request.invalid" in str(answers[1][1])
    assert (await other.call("system.ping"))[1] is None


async def test_what_is_skipped_is_answered_and_the_next_is_read(core: Core) -> None:
    client = core.client()
    bad = [
        msgpack.packb([0, 1, "system.ping", [{"echo": b"", "nonsense": 1}]]),
        msgpack.packb([0, 2, "no.method", [{}]]),
        b"\x94\x00\x03\xabsystem.ping\x91\x82\xa4echo\xc4\x00\xa4echo\xc4\x00",
        msgpack.packb([0, 4, "system.ping", [{}, {}]]),
        msgpack.packb([1, 5, None, {"a": "response"}]),
        msgpack.packb([2, "system.ping", []]),
    ]
    await client.send(b"".join(bad) + frame(9, "system.ping"))
    found = {str(answer[0]): answer[1] for answer in [await client.read() for _ in range(5)]}
    assert found.pop("9") is None
    assert {key: str(error).split(":")[0].split("'")[-1] for key, error in found.items()} == {
        "1": "request.invalid",
        "2": "request.unknown_method",
        "3": "request.invalid",
        "4": "request.invalid",
    }


async def test_too_large_is_said_as_soon_as_it_is_announced(core: Core) -> None:
    client = core.client()
    await client.send(b"\x94\x00\x05\xabsystem.ping\x91\x81\xa4echo\xc6\x7f\xff\xff\xff")
    ((msgid, error, _),) = await client.read_all()
    assert msgid == 5
    assert "request.too_large" in str(error)


async def test_errors_are_maps_after_hello(core: Core) -> None:
    client = core.client()
    _, error, _ = await client.call("key.describe", 1, key="none/none")
    assert isinstance(error, list)
    await client.call("system.hello", 2, errors="map")
    _, error, _ = await client.call("key.describe", 3, key="none/none")
    assert isinstance(error, dict)
    assert error["code"] == "vault.unknown"
    assert error["request"] in core.ledger.entries[-1]


async def test_errors_of_items_are_maps_in_either_form(core: Core) -> None:
    core.custody.call("vault.create", vault="v")
    core.custody.call("key.create", key="v/k", algorithm="aes-256-gcm")
    sealed = core.custody.call("key.encrypt", key="v/k", input=b"4111")["ciphertext"]
    client = core.client()
    items = [{"ciphertext": sealed}, {"ciphertext": b"?"}]
    _, error, result = await client.call("key.decrypt", 1, key="v/k", items=items)
    assert error is None
    assert isinstance(result, dict)
    good, bad = result["results"]
    assert good["plaintext"] == b"4111"
    assert bad["error"]["code"] == "key.ciphertext_invalid"


async def test_when_the_pool_is_spent_it_waits_and_goes_on(core: Core) -> None:
    client = core.client()
    _, hoard = spend(core.pool)
    await client.send(frame(1, "system.ping", echo=b"patience"))
    await core.until(lambda: core.metrics.reads_paused > 0)
    assert core.pool.counters().waiting == 1
    for lease in hoard:
        lease.release()
    assert await client.read() == [1, None, {"echo": b"patience"}]


async def test_waiting_for_memory_takes_one_place_in_the_queue(core: Core) -> None:
    clients = [core.client() for _ in range(5)]
    small, hoard = spend(core.pool)
    for client in clients:
        await client.send(frame(1, "system.ping"))
    await core.until(lambda: core.pool.counters().waiting == 5)
    for _ in range(20):  # a little comes back: too little for anybody, and nobody waits twice
        small.release()
        small = core.pool.lease(256)
        await trio.sleep(0.001)
        assert core.pool.counters().waiting == 5
    clients[0].close()
    for lease in (small, *hoard[1:]):
        lease.release()
    for client in clients[1:]:
        assert (await client.read())[0] == 1
    await core.until(lambda: core.pool.counters().waiting == 0)


def spend(pool: Pool) -> tuple[Lease, list[Lease]]:
    """One slot too small to receive into, and everything else."""
    hoard = [pool.lease(256), pool.lease(256)]  # the second keeps their slab from being given back
    for size in (64 << 10, 16 << 10):
        while True:
            try:
                hoard.append(pool.lease(size))
            except Exhausted:
                break
    return hoard[0], hoard
