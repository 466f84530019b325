"""The reactor over real descriptors: order within a round, steps from inside and outside, fairness to trio."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest
import trio
import trio.lowlevel

from openk_hsm.reactor import EDGE, LINGER, READ, STAY, WRITE, Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@asynccontextmanager
async def running(reactor: Reactor) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        with trio.fail_after(5):
            yield
        nursery.cancel_scope.cancel()


async def test_what_happens_is_told_until_forgotten(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[bytes] = []
    heard = trio.Event()

    def ready(event: int) -> None:
        assert event & READ
        seen.append(ours.recv(10))
        heard.set()

    async with running(reactor):
        reactor.watch(ours.fileno(), ready)
        theirs.send(b"one")
        await heard.wait()
        reactor.forget(ours.fileno())
        reactor.forget(ours.fileno())
        theirs.send(b"two")
        await trio.sleep(3 * LINGER)
    assert seen == [b"one"]


async def test_only_the_events_that_are_wanted(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    events: list[int] = []

    def ready(event: int) -> None:
        events.append(event)
        reactor.change(ours.fileno(), 0)

    async with running(reactor):
        theirs.send(b"x")
        reactor.watch(ours.fileno(), ready, WRITE)
        await trio.sleep(3 * LINGER)
    assert events == [WRITE]


async def test_steps_are_taken_behind_the_events_of_their_round(reactor: Reactor) -> None:
    told: list[str] = []
    done = trio.Event()
    bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]

    def ready(_event: int) -> None:
        if not told:
            reactor.soon(lambda: told.append("step"))
            reactor.soon(done.set)
        told.append("event")

    for bell in bells:
        os.eventfd_write(bell, 1)
        reactor.watch(bell, ready, READ | EDGE)
    async with running(reactor):
        await done.wait()
    for bell in bells:
        reactor.forget(bell)
        os.close(bell)
    assert told == ["event", "event", "event", "step"]


async def test_a_step_from_outside_wakes_it(reactor: Reactor) -> None:
    async with running(reactor):
        for _ in range(3):
            taken = trio.Event()
            await trio.sleep(2 * LINGER)  # it rests in trio
            reactor.soon(taken.set)
            await taken.wait()


async def test_steps_that_ask_for_steps_leave_trio_its_turns(reactor: Reactor) -> None:
    rounds = 0
    stop = False

    def again() -> None:
        nonlocal rounds
        rounds += 1
        if not stop:
            reactor.soon(again)

    late: list[float] = []
    async with running(reactor):
        reactor.soon(again)
        for _ in range(10):
            begin = monotonic()
            await trio.lowlevel.checkpoint()
            late.append(monotonic() - begin)
        stop = True
    assert rounds > len(late)
    assert sorted(late)[len(late) // 2] < 10 * STAY  # ten times: a busy machine; without a bound it would be for ever


async def test_closing_ends_its_run(reactor: Reactor) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            await trio.sleep(2 * LINGER)
            reactor.close()


async def test_after_the_end_nothing_is_done(reactor: Reactor) -> None:
    async with running(reactor):
        pass
    reactor.close()
    reactor.soon(lambda: pytest.fail("taken"))
    reactor.forget(0)
