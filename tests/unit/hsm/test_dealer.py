"""Who is given what waits: in the middle of many requests only workers that have nothing to do, at the end all."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from openk_hsm import frames
from openk_hsm.condition import report_nothing
from openk_hsm.dealer import Dealer
from openk_hsm.dialling import Limits
from openk_hsm.link import Cold, Link
from openk_hsm.quarantine import Quarantine
from openk_hsm.seam import OpCode, Operation, Replay
from openk_hsm.software import SoftwareBackend
from openk_hsm.waiting import Waiting
from openk_memory.handoff import HandOff

Connect = Callable[[], tuple[Link, socket.socket]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A link, and the end at which its worker would read."""
    info = SoftwareBackend(allow=True).open(memoryview(bytearray(64)), 0, lambda: memoryview(b""))
    with ExitStack() as stack:

        def make() -> tuple[Link, socket.socket]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            theirs.setblocking(False)
            link = Link(ours, HandOff.create(64 << 10), info, 5.0, 100)
            stack.callback(link.close)
            stack.callback(theirs.close)
            return link, theirs

        yield make


def batches(worker: socket.socket) -> list[int]:
    """How many operations there were in each message that has arrived."""
    counts: list[int] = []
    try:
        while True:
            counts.append(frames.HEADER.unpack_from(worker.recv(frames.MAX_MESSAGE))[2])
    except BlockingIOError:
        return counts


def dealer_of(*links: Link) -> tuple[Dealer, Waiting]:
    limits = Limits()
    waiting = Waiting(limits, Quarantine(limits.quarantine, report_nothing))
    return Dealer(waiting, list(links), limits), waiting


def submit(waiting: Waiting, count: int) -> None:
    for _ in range(count):
        waiting.queue.push(Operation(OpCode.RANDOM, 16))


def test_only_a_worker_without_work_is_employed(connect: Connect) -> None:
    link, worker = connect()
    dealer, waiting = dealer_of(link)
    for _ in range(4):
        submit(waiting, 8)
        dealer.employ()
    assert batches(worker) == [8]
    dealer.pump()
    assert batches(worker) == [24]
    assert waiting.queue.count == 0


def test_each_idle_worker_is_employed_and_the_dead_ones_share_comes_back(connect: Connect) -> None:
    (first, one), (second, two), (dead, gone) = connect(), connect(), connect()
    gone.close()
    dealer, waiting = dealer_of(dead, first, second)
    for _ in range(2):
        submit(waiting, 8)
        dealer.employ()
    assert batches(one) == [8]
    assert batches(two) == [8]
    assert waiting.queue.count == 0


def test_nothing_waits_nothing_is_sent(connect: Connect) -> None:
    link, worker = connect()
    dealer, _ = dealer_of(link)
    dealer.employ()
    assert batches(worker) == []


def test_a_worker_that_hangs_is_given_up_and_its_requests_are_named(connect: Connect) -> None:
    (hung, _), (idle, _) = connect(), connect()
    dealer, waiting = dealer_of(hung, idle)
    now = monotonic()
    for request in (0, 7, 8):
        waiting.queue.push(Operation(OpCode.RANDOM, 16, request=request, expires=now + 100))
    assert hung.send_batch(waiting.queue, now) == 3
    hung.send_cold(Cold("objects", (), Replay.PURE, now + 100, 5.0, request=9), now)
    assert dealer.watch(now + 1.0) == []
    assert dealer.watch(now + 20.0) == [[0, 7, 8, 9]]
    with pytest.raises(ConnectionError, match="given up"):
        hung.receive()


def test_what_is_sent_names_its_request_and_how_many_workers_died_of_it(connect: Connect) -> None:
    link, worker = connect()
    dealer, waiting = dealer_of(link)
    waiting.queue.push(Operation(OpCode.RANDOM, 16, request=2**64 - 1))
    dealer.pump()
    waiting.again.append(Operation(OpCode.RANDOM, 16, request=0x18, replays=2))
    waiting.cold.append(Cold("objects", (), Replay.PURE, 0.0, 1.0, request=0x19))
    link.batches.clear()
    dealer.pump()
    link.batches.clear()
    dealer._alone.clear()
    dealer.pump()
    sent = [worker.recv(frames.MAX_MESSAGE) for _ in range(3)]
    assert [frames.HEADER.unpack_from(message)[:2] for message in sent] == [(b"B", 0), (b"B", 2), (b"C", 0)]
    assert frames.REQUEST.unpack_from(sent[0], frames.HEADER.size)[-1] == 2**64 - 1
    assert frames.REQUEST.unpack_from(sent[1], frames.HEADER.size)[-1] == 0x18
    assert frames.unpack_call(memoryview(sent[2])).request == 0x19
