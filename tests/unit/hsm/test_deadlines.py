"""No operation times out before its deadline, and none later than the tick after it: waiting, or at a worker that is
silent. (A cold call that is at a worker ends with the worker, whose alarm is its deadline.)"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_hsm import dealer, lane
from openk_hsm.dialling import Limits
from openk_hsm.errors import TimedOut
from openk_hsm.lane import WorkerLane
from openk_hsm.link import Cold, Link
from openk_hsm.pending import Pending
from openk_hsm.seam import OpCode, Operation, Replay
from openk_hsm.software import SoftwareBackend
from openk_memory.handoff import HandOff
from tests.support.clock import Clock

DEADLINE = 2.0
LIMITS = Limits(deadline=DEADLINE, breaker=1e9)


@dataclass
class Given:
    begun: float
    pending: Pending[object] | Pending[bytes | int]
    cold: bool


class Bench:
    """A lane whose clock and ticks are the test's; `silent`: with a worker that takes everything and says nothing."""

    def __init__(self, stack: ExitStack, *, silent: bool) -> None:
        self.clock = Clock()
        for module in (lane, dealer):
            stack.enter_context(mock.patch.object(module, "monotonic", self.clock))
        self.lane = WorkerLane("main", [], limits=LIMITS)
        stack.callback(self.lane._reactor.close)
        if silent:
            info = SoftwareBackend(allow=True).open(memoryview(bytearray(64)), 0, lambda: memoryview(b""))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            stack.callback(theirs.close)
            self.lane._links.append(Link(ours, HandOff.create(64 << 10), info, 1e6, 100))
            stack.callback(self.lane._links[0].close)
        self.given: list[Given] = []

    def submit(self, *, cold: bool) -> None:
        if cold:
            call = Cold("objects", (), Replay.PURE, DEADLINE, DEADLINE)
            self.lane.queue(call)
            self.given.append(Given(self.clock.now, call.pending, cold=True))
        else:
            self.given.append(Given(self.clock.now, self.lane.submit(Operation(OpCode.RANDOM, 16)), cold=False))
        self.lane.pump()

    def tick(self) -> None:
        self.lane._tick(self.clock.now)

    def timed_out(self) -> list[bool]:
        """Of each that was given. What else may settle it is an error."""
        for one in self.given:
            if one.pending.settled:
                with pytest.raises(TimedOut):
                    one.pending.result()
        return [one.pending.settled for one in self.given]


STEPS = st.lists(st.tuples(st.floats(0, 0.7), st.sampled_from(["hot", "cold", "tick"])), max_size=40)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, silent=st.booleans())
def test_nothing_times_out_before_its_deadline_nor_after_the_next_tick(
    steps: list[tuple[float, str]], silent: bool
) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, silent=silent)
        for seconds, step in steps:
            bench.clock.pass_(seconds)
            if step == "tick":
                bench.tick()
            else:
                bench.submit(cold=step == "cold")
            for one, late in zip(bench.given, bench.timed_out(), strict=True):
                due = bench.clock.now >= one.begun + DEADLINE
                assert due or not late
                if step == "tick" and not (silent and one.cold):
                    assert late == due


@pytest.mark.parametrize("silent", [False, True])
def test_the_deadline_begins_with_the_operation_not_with_the_tick_before(silent: bool) -> None:
    with ExitStack() as stack:
        bench = Bench(stack, silent=silent)
        bench.tick()
        bench.clock.pass_(lane.TICK * 0.99)
        bench.submit(cold=False)
        bench.clock.pass_(DEADLINE - 0.01)
        bench.tick()
        assert bench.timed_out() == [False]
        bench.clock.pass_(0.02)
        bench.tick()
        assert bench.timed_out() == [True]
