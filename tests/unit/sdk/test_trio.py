"""The trio client against daemons that behave and daemons that do not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import trio

import openk.trio
from openk.errors import Interrupted, TimedOut, Unintelligible, Unreachable, VaultFault
from tests.support.fake_daemon import FakeDaemon, Refusal
from tests.unit.sdk.scripted import Peer, echo, scripted, vanish
from tests.unit.sdk.test_blocking import CURSORS, FOLLOWED, batches


async def test_calls_secrets_and_errors(tmp_path: Path) -> None:
    answers = {
        "secret.get": {"value": b"value", "version": 2, "created": "t"},
        "vault.create": Refusal("vault.exists", "There is a vault payments."),
    }
    with FakeDaemon(tmp_path / "s", answers):
        async with openk.trio.Client(tmp_path / "s") as client:
            assert (await client.secret.get("payments/db")).value == b"value"
            with pytest.raises(VaultFault, match="There is"):
                await client.vault.create("payments")
            assert (await client.call("secret.get", {"secret": "x"}))["version"] == 2


async def test_tasks_share_one_connection_and_answers_come_in_any_order(tmp_path: Path) -> None:
    def backwards(peer: Peer) -> None:
        requests = [peer.take() for _ in range(20)]
        for msgid, _, params in reversed(requests):
            peer.answer(msgid, {"echo": params["echo"]})

    found: dict[int, bytes | None] = {}
    with scripted(tmp_path, backwards) as server:
        async with openk.trio.Client(tmp_path / "socket") as client, trio.open_nursery() as nursery:

            async def ask(number: int) -> None:
                found[number] = await client.system.ping(b"%d" % number)

            for number in range(20):
                nursery.start_soon(ask, number)
    assert found == {number: b"%d" % number for number in range(20)}
    assert len(server.peers) == 1


async def test_large_messages_of_many_tasks(tmp_path: Path) -> None:
    payload = bytes(60_000)
    with scripted(tmp_path, echo):
        async with openk.trio.Client(tmp_path / "socket") as client, trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await client.system.ping(payload) == payload

            for _ in range(40):
                nursery.start_soon(ask)


async def test_no_daemon(tmp_path: Path) -> None:
    async with openk.trio.Client(tmp_path / "none") as client:
        with pytest.raises(Unreachable, match="none"):
            await client.system.ping()


async def test_outside_its_block(tmp_path: Path) -> None:
    client = openk.trio.Client(tmp_path / "none")
    with pytest.raises(Interrupted, match="outside"):
        await client.system.ping()


async def test_a_call_that_changes_nothing_is_sent_again(tmp_path: Path) -> None:
    with scripted(tmp_path, vanish, vanish, echo):
        async with openk.trio.Client(tmp_path / "socket") as client:
            assert await client.system.ping(b"x") == b"x"


async def test_but_not_for_ever(tmp_path: Path) -> None:
    with scripted(tmp_path, *[vanish] * 5) as server:
        async with openk.trio.Client(tmp_path / "socket") as client:
            with pytest.raises(Interrupted):
                await client.system.ping(b"x")
        assert len(server.peers) == 3


async def test_a_call_that_changes_something_is_not_sent_again(tmp_path: Path) -> None:
    with scripted(tmp_path, vanish, echo):
        async with openk.trio.Client(tmp_path / "socket") as client:
            with pytest.raises(Interrupted):
                await client.key.rotate("v/k")
            assert await client.system.ping(b"x") == b"x"


async def test_a_daemon_that_restarts_is_waited_for(tmp_path: Path) -> None:
    async with openk.trio.Client(tmp_path / "socket") as client, trio.open_nursery() as nursery:
        found: list[bytes | None] = []
        answered = trio.Event()

        async def ask() -> None:
            found.append(await client.system.ping(b"x"))
            answered.set()

        with scripted(tmp_path, vanish):
            nursery.start_soon(ask)
            await trio.sleep(0.1)
        (tmp_path / "socket").unlink()
        await trio.sleep(0.1)
        with scripted(tmp_path, echo):
            with trio.fail_after(5):
                await answered.wait()
    assert found == [b"x"]


async def test_timeout_of_one_call_leaves_the_others(tmp_path: Path) -> None:
    def first_never(peer: Peer) -> None:
        late = peer.take()[0]
        second = peer.take()[0]
        peer.answer(late, {"echo": b"late"})
        peer.answer(second, {"echo": b"second"})
        peer.echo()

    with scripted(tmp_path, first_never) as server:
        async with openk.trio.Client(tmp_path / "socket") as client:
            begun = time.monotonic()
            with pytest.raises(TimedOut, match=r"0\.1 seconds"):
                await client.within(0.1).system.ping(b"first")
            assert time.monotonic() - begun < 2
            assert await client.system.ping(b"second") == b"second"
            assert len(server.peers) == 1


async def test_a_cancelled_call_is_forgotten(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.take()
        peer.echo()

    with scripted(tmp_path, script):
        async with openk.trio.Client(tmp_path / "socket") as client:
            with trio.move_on_after(0.1) as scope:
                await client.system.ping(b"x")
            assert scope.cancelled_caught
            assert await client.system.ping(b"y") == b"y"


async def test_cancelled_in_the_middle_of_sending_the_next_call_has_a_new_connection(tmp_path: Path) -> None:
    done = threading.Event()

    def deaf(peer: Peer) -> None:
        peer.socket.recv(1000)
        peer.answer(1, {"version": "1", "caller": {}, "limits": {"message_bytes": 1 << 24, "in_flight": 64}})
        done.wait(5)

    with scripted(tmp_path, deaf, echo):
        async with openk.trio.Client(tmp_path / "socket", timeout=1) as client:
            with pytest.raises(TimedOut):
                await client.within(0.1).system.ping(bytes(8 << 20))
            assert await client.system.ping(b"x") == b"x"
            done.set()


async def test_nonsense(tmp_path: Path) -> None:
    def other(peer: Peer) -> None:
        peer.socket.recv(1000)
        peer.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.socket.recv(1)

    with scripted(tmp_path, other):
        async with openk.trio.Client(tmp_path / "socket") as client:
            with pytest.raises(Unintelligible):
                await client.system.ping()


async def test_good_answers_that_come_with_nonsense_are_answers(tmp_path: Path) -> None:
    def nonsense(peer: Peer) -> None:
        peer.answer_with_nonsense(2)

    heard: list[bytes | None] = []
    with scripted(tmp_path, nonsense, echo):
        async with openk.trio.Client(tmp_path / "socket") as client:

            async def ask() -> None:
                heard.append(await client.system.ping(b"x"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                nursery.start_soon(ask)
            assert heard == [b"x", b"x"]
            assert await client.system.ping(b"x") == b"x"  # on another connection


async def test_leaving_the_block_interrupts_what_others_wait_for(tmp_path: Path) -> None:
    def slow(peer: Peer) -> None:
        peer.take()
        peer.socket.recv(1)

    outcomes: list[str] = []
    with scripted(tmp_path, slow):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                try:
                    await client.system.ping(b"x")
                except Interrupted as error:
                    outcomes.append(error.code)

            async with openk.trio.Client(tmp_path / "socket") as client:
                nursery.start_soon(ask)
                await trio.sleep(0.1)
    assert outcomes == ["daemon.interrupted"]


async def test_an_exception_in_the_block_comes_out_as_itself(tmp_path: Path) -> None:
    async def fail() -> None:
        async with openk.trio.Client(tmp_path / "socket") as client:
            await client.system.ping()
            raise ZeroDivisionError

    with scripted(tmp_path, echo), pytest.raises(ZeroDivisionError):
        await fail()


async def test_events_are_followed_too(tmp_path: Path) -> None:
    script = batches()
    with FakeDaemon(tmp_path / "s", {"system.events": lambda _: next(script)}) as daemon:
        async with openk.trio.Client(tmp_path / "s") as client:
            stream = client.follow()
            found = [await anext(stream) for _ in range(4)]
            with pytest.raises(openk.errors.Error, match="It stops"):
                await anext(stream)
            async for one in stream:
                found.append(one)
                if len(found) == len(FOLLOWED):
                    break
            assert [(one.kind, one.number) for one in found] == FOLLOWED
            assert [asked.get("after") for asked in daemon.asked("system.events")] == CURSORS
