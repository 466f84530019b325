from __future__ import annotations

from collections import defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openk_hsm.errors import Busy
from openk_hsm.fair_queue import FairQueue
from openk_hsm.seam import OpCode, Operation


def operation(client: int, expires: float = 0.0) -> Operation:
    return Operation(OpCode.RANDOM, 1, client=client, expires=expires)


class Queueing(RuleBasedStateMachine):
    """Against a model: each client's operations keep their order, and no client is passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(5, 12)
        self.model: dict[int, deque[Operation]] = defaultdict(deque)
        self.waited: dict[int, int] = defaultdict(int)

    @property
    def held(self) -> int:
        return sum(map(len, self.model.values()))

    @rule(client=st.integers(0, 4))
    def push(self, client: int) -> None:
        one = operation(client)
        if self.held >= 12 or len(self.model[client]) >= 5:
            with pytest.raises(Busy):
                self.queue.push(one)
        else:
            self.queue.push(one)
            self.model[client].append(one)

    @precondition(lambda self: self.held)
    @rule()
    def pop(self) -> None:
        waiting = [client for client, mine in self.model.items() if mine]
        one = self.queue.pop()
        assert one is self.model[one.client].popleft()
        self.waited[one.client] = 0
        for client in waiting:
            if client != one.client:
                self.waited[client] += 1
                assert self.waited[client] <= 5

    @precondition(lambda self: self.held)
    @rule()
    def put_back(self) -> None:
        one = self.queue.pop()
        self.queue.put_back(one)
        assert self.queue.pop() is one
        self.queue.put_back(one)

    @precondition(lambda self: not self.held)
    @rule()
    def empty(self) -> None:
        with pytest.raises(IndexError):
            self.queue.pop()

    @invariant()
    def counts(self) -> None:
        assert self.queue.count == self.held


TestQueueing = Queueing.TestCase


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10)), max_size=20), st.floats(0, 10))
def test_what_expired_is_taken_out_and_the_rest_stays(rows: list[tuple[int, float]], now: float) -> None:
    queue = FairQueue(100, 100)
    last: dict[int, float] = {}
    for client, delta in rows:
        last[client] = last.get(client, 0.0) + delta  # in order, as a lane's are
        queue.push(operation(client, last[client]))
    gone = list(queue.expired(now))
    left = queue.drain()
    assert all(one.expires <= now for one in gone)
    assert all(one.expires > now for one in left)
    assert len(gone) + len(left) == len(rows)
    assert queue.count == 0
