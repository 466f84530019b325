"""A link whose worker has gone between two messages."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from openk_hsm.fair_queue import FairQueue
from openk_hsm.link import Cold, Link
from openk_hsm.roots import ROOT, ROOT_MAC
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Replay, Wrapped
from openk_hsm.software import SoftwareBackend
from openk_memory.handoff import HandOff

SPEC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)


@pytest.fixture
def link() -> Iterator[Link]:
    info = SoftwareBackend(allow=True).open(memoryview(bytearray(64)), 0, lambda: memoryview(b""))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.close()
    made = Link(ours, HandOff.create(64 << 10), info, 5.0, 100)
    yield made
    made.close()


@pytest.mark.parametrize("loads", [False, True])
def test_operations_never_sent_are_in_the_queue_again_in_order(link: Link, loads: bool) -> None:
    wrapped = KeyHandle(100, SPEC, Wrapped(ROOT, b"c", bytes(94)))
    queue = FairQueue(100, 100)
    operations = [Operation(OpCode.RANDOM, 16, client=client) for client in (1, 2, 1)]
    operations.append(Operation(OpCode.MAC, 32, wrapped if loads else ROOT_MAC, Mechanism.HMAC_SHA_256, b"q", client=3))
    for operation in operations:
        queue.push(operation)
    with pytest.raises(OSError, match="Broken pipe"):
        link.send_batch(queue, 0.0)
    assert queue.count == 4
    assert not link.batches
    assert link.cost == 0
    mine = [operation for operation in (queue.pop() for _ in range(4)) if operation.client == 1]
    assert mine == [operations[0], operations[2]]


def test_a_cold_call_never_sent_stays_its_callers(link: Link) -> None:
    with pytest.raises(OSError, match="Broken pipe"):
        link.send_cold(Cold("objects", (), Replay.PURE, 0.0, 1.0), 0.0)
    assert not link.cold
