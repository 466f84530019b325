"""The pool under any order of calls: live leases never overlap, what leaves is zero, budgets hold, nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openk_memory.errors import DoubleRelease, Exhausted
from openk_memory.kernel import PAGE
from openk_memory.lease import Lease
from openk_memory.pool import Pool
from openk_memory.region import EDGE

CAPACITY = 160 * PAGE
OWNER = 80 * PAGE
RESERVE = 20 * PAGE
SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from([255, 256, 257, 1024, 1025, 4096, 16384, 16385, 65535, 65536, 65537, 200_000]),
    st.integers(0, 300_000),
)


@dataclass
class Held:
    lease: Lease
    size: int
    owner: int
    holds: int = 1
    slices: list[memoryview] = field(default_factory=list[memoryview])

    @property
    def span(self) -> tuple[int, int]:
        return self.lease.address, self.lease.address + self.size


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(CAPACITY, owner_bytes=OWNER, reserve_bytes=RESERVE)
        self.live: list[Held] = []
        self.orphans: list[memoryview] = []
        self.peak = 0

    @rule(size=SIZES, owner=st.sampled_from([0, 0, 7, 8]))
    def lease(self, size: int, owner: int) -> None:
        before = self.pool.in_use
        lease = self.try_lease(size, owner)
        if isinstance(lease, Exhausted):
            assert lease.requested == size
            assert self.pool.in_use == before
            assert self.live or self.orphans or not lease.possible, "an empty pool refused what it could give"
            return
        assert len(lease.view) == size
        assert not any(lease.view)
        assert lease.address % 16 == 0
        lease.view[:] = b"\xee" * size
        self.live.append(Held(lease, size, owner))

    def try_lease(self, size: int, owner: int) -> Lease | Exhausted:
        try:
            return self.pool.lease(size, owner)
        except Exhausted as error:
            return error

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.live))
        assert held.lease.hold() is held.lease
        held.holds += 1

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def slice(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.live))
        held.slices.append(held.lease.view[: data.draw(st.integers(0, held.size))])

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.live))
        assert bytes(held.lease.view) == b"\xee" * held.size
        held.lease.release()
        held.holds -= 1
        if held.holds:
            return
        self.live.remove(held)
        self.orphans += held.slices
        held.slices.clear()  # hypothesis remembers what it drew
        with pytest.raises(DoubleRelease):
            held.lease.release()
        with pytest.raises(DoubleRelease):
            held.lease.hold()
        with pytest.raises(ValueError, match="released"):
            bytes(held.lease.view)

    @precondition(lambda self: self.orphans)
    @rule()
    def forget_slices(self) -> None:
        self.orphans.clear()

    @invariant()
    def leases_do_not_overlap(self) -> None:
        spans = sorted(held.span for held in self.live)
        assert all(first[1] <= second[0] for first, second in pairwise(spans))

    @invariant()
    def stale_slices_show_nothing(self) -> None:
        assert not any(any(view) for view in self.orphans)

    @invariant()
    def the_books_agree(self) -> None:
        counters = self.pool.counters()
        asked = sum(held.size for held in self.live)
        assert asked <= counters.in_use <= counters.locked <= CAPACITY
        assert bool(self.live) == bool(counters.in_use)
        self.peak = max(self.peak, counters.in_use)
        assert counters.peak == self.peak
        for owner in (7, 8):
            own = self.pool.held_by(owner)
            assert sum(held.size for held in self.live if held.owner == owner) <= own <= OWNER
        assert counters.leaked == 0

    def teardown(self) -> None:
        for held in self.live:
            for _ in range(held.holds):
                held.lease.release()
            held.slices.clear()
        self.orphans.clear()
        assert self.pool.in_use == 0
        # Whatever happened, all of it comes back in one piece.
        whole = self.pool.lease(CAPACITY - EDGE)
        assert not any(whole.view)
        whole.release()
        self.pool.retire()


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
