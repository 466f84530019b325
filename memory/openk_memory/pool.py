"""The pool: short-lived locked memory at the price of a list pop (allocating a region costs 27-64 microseconds).

    pool   ┌───────┬──────────────────────────┬───────────────┬──────────┬─ ─ ─ ─ ─ ─ ─ ─┬───────┐
           │ guard │ slab: slots of one class │ slab          │ run      │ not committed │ guard │
           └───────┴──────────────────────────┴───────────────┴──────────┴─ ─ ─ ─ ─ ─ ─ ─┴───────┘
    slot   ┌───────────────────────────────────┬────────┬─────┐
           │ 256, 1 Ki, 4 Ki, 16 Ki or 64 KiB  │ canary │ pad │     stride = class + 16; a larger request
           └───────────────────────────────────┴────────┴─────┘     is a run of whole pages of its own

The rules:
 - What leaves the pool is zero; what returns is wiped at once. Memory stays mapped and locked for the process's life.
 - A slot is leased again only when no memoryview of it is alive. Each slot's views share one managed buffer, and its
   reference count says how many there are; a slot with survivors waits in quarantine. So a slice kept too long reads
   zeros (or faults in Python), never another request's secret.
 - A pool belongs to one thread: it has no lock.
"""

from __future__ import annotations

import gc
import os
import resource
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openk_memory import kernel
from openk_memory.errors import Exhausted, LockedMemoryError, LockLimitTooLow
from openk_memory.kernel import PAGE, PROT_READ, PROT_WRITE
from openk_memory.lease import Lease, Ledger, Shelf, Slab, Slot
from openk_memory.region import EDGE, Kind, Reservation, limit_error
from openk_memory.spans import Spans

DEFAULT_CAPACITY: Final = 6 << 20
"""Leaves 2 MiB of the usual 8 MiB RLIMIT_MEMLOCK to hand-off regions and long-lived ones."""
CLASSES: Final = ((256, 256), (1024, 64), (4096, 16), (16384, 8), (65536, 4))
"""Bytes of a slot, slots of a slab: a slab is 68 to 260 KiB and wastes under 3 %."""
LARGEST: Final = CLASSES[-1][0]
STEP: Final = 64 * PAGE  # how much is committed at once, at least

_new = object.__new__


@dataclass(frozen=True, slots=True)
class Counters:
    """For metrics. Bytes but for the counts. `in_use` and `peak` count whole slots; `locked` is what the kernel
    has locked for this pool so far; `waits` are calls of `when_room`."""

    capacity: int
    locked: int
    in_use: int
    peak: int
    refusals: int
    waits: int
    waiting: int
    quarantined: int
    leaked: int


class Pool:
    """Locked memory for requests, bounded, wiped, accounted per owner. One thread uses it."""

    __slots__ = ("__weakref__", "_by_units", "_forked", "_kept", "_ledger", "_owner_limit", "_refusals",
                 "_reservation", "_runs", "_shared_limit", "_shelves", "_spans", "_stuck_at", "_waits")  # fmt: skip

    def __init__(
        self,
        capacity_bytes: int = DEFAULT_CAPACITY,
        *,
        owner_bytes: int | None = None,
        reserve_bytes: int | None = None,
        warm_bytes: int = 0,
        kind: Kind | None = None,
    ) -> None:
        """All sizes in bytes. `capacity_bytes` is the most this pool will ever lock, in steps as it is needed;
        `warm_bytes` of it at once. One owner may hold `owner_bytes` (default: half the capacity); all owners together
        leave `reserve_bytes` (default: an eighth) to owner 0, the daemon itself, which has no budget but the capacity.

        Raises LockLimitTooLow if RLIMIT_MEMLOCK cannot hold the capacity. A pool is never closed."""
        self._reservation = Reservation(capacity_bytes, kind)
        capacity = self._reservation.capacity
        check_limit(capacity)
        self._spans = Spans(capacity // PAGE)
        self._ledger = Ledger()
        self._owner_limit = capacity // 2 if owner_bytes is None else owner_bytes
        self._shared_limit = capacity - (capacity // 8 if reserve_bytes is None else reserve_bytes)
        self._shelves = [Shelf(size, size + EDGE, slots) for size, slots in CLASSES]
        self._runs = Shelf(0, 0, 1)
        # (size + 255) >> 8 finds the shelf of a size in one step.
        self._by_units = [next(s for s in self._shelves if s.size >= units << 8) for units in range((LARGEST >> 8) + 1)]
        self._refusals = self._waits = 0
        self._kept = 0  # slots in quarantine that a collection left there
        self._stuck_at = capacity + 1
        self._forked = False
        if warm_bytes:
            self._reservation.commit(warm_bytes)
        _tell_of_fork(self)

    # --- leasing ---

    def lease(self, size: int, owner: int = 0) -> Lease:
        """A lease of `size` bytes (0 and more), all zero. Raises Exhausted when the pool or the owner's budget is
        spent; ValueError for a negative size. The caller releases it."""
        if not 0 <= size <= LARGEST:
            return self._lease_run(size, owner)
        shelf = self._by_units[(size + 255) >> 8]
        stride = shelf.stride
        ledger = self._ledger
        if owner:
            held = ledger.owners.get(owner, 0) + stride
            if held > self._owner_limit or ledger.in_use + stride > self._shared_limit:
                raise self._refusal(size, stride, owner)
        try:
            slot = shelf.free.pop()
        except IndexError:
            slot = self._another(shelf, size, owner)
        # As in _issue, written out: a call costs 60 ns.
        lease = _new(Lease)
        lease.view = slot.view[:size]
        lease.address = slot.address
        lease.slot = slot
        lease.owner = owner
        lease.holds = 1
        in_use = ledger.in_use = ledger.in_use + stride
        if in_use > ledger.peak:
            ledger.peak = in_use
        if owner:
            ledger.owners[owner] = ledger.owners.get(owner, 0) + stride
        return lease

    def when_room(self, waiter: Callable[[], bool], owner: int = 0) -> None:
        """Call `waiter` after coming releases until it returns True (it got its memory, or gave up). Owners in turn, of
        each the oldest first, each at most once a release; what it raises reaches whoever released. Bounded by its
        callers."""
        self._waits += 1
        self._ledger.waiters.add(owner, waiter)

    def offer(self) -> None:
        """Ask those who wait without a release. Call it now and then: room also comes where a view dies late."""
        if self._ledger.waiters:
            self._ledger.wake()

    def counters(self) -> Counters:
        ledger = self._ledger
        quarantined = sum(slot.stride for shelf in (*self._shelves, self._runs) for slot in shelf.quarantine)
        return Counters(
            self.capacity, self._reservation.committed, ledger.in_use, ledger.peak, self._refusals, self._waits,
            len(ledger.waiters), quarantined, ledger.leaked,
        )  # fmt: skip

    def held_by(self, owner: int) -> int:
        """Bytes that `owner` (not 0) has on lease."""
        return self._ledger.owners.get(owner, 0)

    @property
    def in_use(self) -> int:
        return self._ledger.in_use

    @property
    def peak(self) -> int:
        return self._ledger.peak

    @property
    def waits(self) -> int:
        return self._waits

    @property
    def capacity(self) -> int:
        return self._reservation.capacity

    @property
    def kind(self) -> Kind:
        return self._reservation.kind

    # --- the slow path: another slot, another slab, a run ---

    def _another(self, shelf: Shelf, size: int, owner: int) -> Slot:
        """A slot when the shelf has no free one: from quarantine, from the slab being cut, from a new slab."""
        if self._forked:
            raise self._refusal(size, shelf.stride, owner)
        _sweep(shelf, 8)
        if shelf.free:
            return shelf.free.pop()
        slab = shelf.slab
        if slab is None:
            _sweep(shelf, len(shelf.quarantine))
            if shelf.free:
                return shelf.free.pop()
            pages = kernel.round_up(shelf.stride * shelf.slots) // PAGE
            first = self._take(pages)
            if shelf.free:  # looking for room emptied the quarantine
                if first is not None:
                    self._spans.give(first, pages)
                return shelf.free.pop()
            if first is None:
                raise self._refusal(size, shelf.stride, owner)
            slab = shelf.slab = Slab(first, pages)
        address = self._reservation.address + slab.first * PAGE + slab.carved * shelf.stride
        slot = Slot(kernel.view_of(address, shelf.size), address, shelf, slab, self._ledger, shelf.stride)
        slab.carved += 1
        if slab.carved == shelf.slots:
            shelf.slab = None
        return slot

    def _lease_run(self, size: int, owner: int) -> Lease:
        if size < 0:
            raise ValueError("a lease cannot be smaller than nothing")
        stride = kernel.round_up(size + EDGE)
        ledger = self._ledger
        held = ledger.owners.get(owner, 0) + stride
        if self._forked or (owner and (held > self._owner_limit or ledger.in_use + stride > self._shared_limit)):
            raise self._refusal(size, stride, owner)
        first = self._take(stride // PAGE)
        if first is None:
            raise self._refusal(size, stride, owner)
        address = self._reservation.address + first * PAGE
        slab = Slab(first, stride // PAGE)
        slot = Slot(kernel.view_of(address, stride - EDGE), address, self._runs, slab, ledger, stride)
        lease = _new(Lease)
        lease.view = slot.view[:size]
        lease.address = address
        lease.slot = slot
        lease.owner = owner
        lease.holds = 1
        ledger.in_use += stride
        ledger.peak = max(ledger.peak, ledger.in_use)
        if owner:
            ledger.owners[owner] = held
        return lease

    def _take(self, pages: int) -> int | None:
        """The first page of a zeroed, committed span, or None."""
        self._give_back_runs()
        first = self._spans.take(pages)
        if first is None and (self._reclaim() or self._collect()):
            first = self._spans.take(pages)
        if first is None:
            return None
        end = (first + pages) * PAGE
        if end > self._reservation.committed:
            try:
                self._reservation.commit(min(max(end, self._reservation.committed + STEP), self.capacity))
            except LockLimitTooLow:  # somebody else in this process locked what this pool was promised
                self._spans.give(first, pages)
                return None
        return first

    def _give_back_runs(self) -> None:
        _sweep(self._runs, len(self._runs.quarantine))
        while self._runs.free:
            self._erase(self._runs.free.pop().slab)

    def _reclaim(self) -> bool:
        """Turn slabs whose slots are all free back into spans. A walk over all free slots, so it is not repeated for
        each refused request: only when bytes came back since the last time it was in vain, or at every 64th refusal."""
        if self._ledger.in_use >= self._stuck_at and self._refusals % 64:
            return False
        gained = False
        for shelf in self._shelves:
            _sweep(shelf, len(shelf.quarantine))
            free = Counter(slot.slab for slot in shelf.free)
            empty = {slab for slab, count in free.items() if count == slab.carved}
            if not empty:
                continue
            shelf.free[:] = [slot for slot in shelf.free if slot.slab not in empty]
            if shelf.slab in empty:
                shelf.slab = None
            for slab in empty:
                self._erase(slab)
            gained = True
        waiting = any(shelf.quarantine for shelf in self._shelves)  # their views may die without a byte coming back
        self._stuck_at = self.capacity + 1 if gained or waiting else self._ledger.in_use
        return gained

    def _collect(self) -> bool:
        """Have Python look for cycles, where slots are in quarantine because their views may be in some: nobody would
        look for as long as little is allocated. Not again for those that the last look left there."""
        held = self._quarantined()
        if held > self._kept:
            gc.collect()
            self._give_back_runs()
            self._reclaim()
        self._kept = self._quarantined()
        return self._kept < held

    def _quarantined(self) -> int:
        return sum(len(shelf.quarantine) for shelf in (*self._shelves, self._runs))

    def _erase(self, slab: Slab) -> None:
        """Zero it, canaries included, and give its pages back."""
        kernel.fill(self._reservation.address + slab.first * PAGE, 0, slab.pages * PAGE)
        self._spans.give(slab.first, slab.pages)

    def _refusal(self, size: int, stride: int, owner: int) -> Exhausted:
        self._refusals += 1
        ledger = self._ledger
        if self._forked:
            text, possible = "a forked child has no locked memory", False
        elif owner and ledger.owners.get(owner, 0) + stride > self._owner_limit:
            text, possible = f"owner {owner} has spent its budget", stride <= self._owner_limit
        else:
            text = "the pool of locked memory is spent"
            possible = stride <= (self._shared_limit if owner else self.capacity)
        text = f"{text}: {size} bytes asked for, {ledger.in_use} of {self.capacity} in use"
        return Exhausted(
            text, requested=size, in_use=ledger.in_use, capacity=self.capacity, owner=owner or None, possible=possible
        )

    # --- the end ---

    def retire(self) -> None:
        """For tests and self-tests: give the lock quota back. Raises LockedMemoryError while leases or views live."""
        self._give_back_runs()
        for shelf in self._shelves:
            _sweep(shelf, len(shelf.quarantine))
        if self._ledger.in_use or any(shelf.quarantine for shelf in (*self._shelves, self._runs)):
            raise LockedMemoryError("a pool with live leases or views cannot be retired")
        self._strand()
        self._reservation.retire()

    def after_fork(self) -> None:
        """In the child: the locked pages are gone. Empty ones take their place, so that a forgotten lease of the
        parent can be dropped without a crash, and no lease is given out any more."""
        self._strand()
        self._ledger.canary = 0  # what the canaries read now
        self._reservation.replace(PROT_READ | PROT_WRITE)

    def _strand(self) -> None:
        self._forked = True
        for shelf in self._shelves:
            shelf.free = _Nowhere()
            shelf.quarantine.clear()


class _Nowhere(list[Slot]):
    """A shelf from which nothing can be taken, because nothing stays on it."""

    def append(self, _: Slot) -> None:
        return


def _sweep(shelf: Shelf, tries: int) -> None:
    """Free those of the first `tries` slots in quarantine whose views have died; the others go to the back."""
    quarantine = shelf.quarantine
    for _ in range(min(tries, len(quarantine))):
        slot = quarantine.popleft()
        if slot.deserted():
            kernel.fill(slot.address, 0, len(slot.view))  # a late writer may have used its view
            shelf.free.append(slot)
        else:
            quarantine.append(slot)


def check_limit(capacity: int) -> None:
    """Raises LockLimitTooLow unless `capacity` more bytes may be locked. CAP_IPC_LOCK lifts the limit."""
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if soft == resource.RLIM_INFINITY or kernel.has_ipc_lock():
        return
    if kernel.locked_bytes() + capacity > soft:
        raise limit_error(capacity)


def _tell_of_fork(pool: Pool) -> None:
    known = weakref.ref(pool)

    def tell() -> None:
        found = known()
        if found is not None:
            found.after_fork()

    os.register_at_fork(after_in_child=tell)
