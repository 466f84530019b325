"""A lease: one counted claim on one slot of a pool, and what a slot and its shelf (size class) consist of.

This is the hot path: a lease or a release has to cost well under 1.5 microseconds, so a lease is made without
`__init__` (by `Pool.lease`), wiping a small slot is a copy from a block of zeros (a fifth of the price of memset
through ctypes), and all bookkeeping is a few attributes.
"""

from __future__ import annotations

import gc
import warnings
from collections import deque
from collections.abc import Callable
from ctypes import c_uint64
from sys import getrefcount
from typing import Final

from openk_memory.errors import Damaged, DoubleRelease, Unsupported
from openk_memory.kernel import fill
from openk_memory.region import CANARY

Waiter = Callable[[], bool]
"""Takes the memory it wants, and then returns True."""
TRIES: Final = 16
"""Refusals after which a release is over."""
AHEAD: Final = 4
"""Of these, so many by one owner: a message that is too large yet does not hold up those behind it for long."""


class Ledger:
    """What a pool counts. Bytes are strides (slots and runs as taken, not as asked for)."""

    __slots__ = ("canary", "in_use", "leaked", "owners", "peak", "waiters", "waking")

    def __init__(self) -> None:
        self.canary = CANARY
        self.in_use = 0
        self.peak = 0
        self.leaked = 0
        self.owners: dict[int, int] = {}  # only owners that hold something: bounded by the live leases
        self.waiters = Waiters()
        self.waking = False

    def wake(self) -> None:
        """Offer the room to those who wait; see `Pool.when_room`."""
        if self.waking:
            return
        self.waking = True
        try:
            self.waiters.offer(everybody=not self.in_use)
        finally:
            self.waking = False


class Waiters:
    """Each owner's in their order, owners in turn. `offer` asks some of them whether they can use what is free."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[int, deque[Waiter]] = {}  # whose turn is next first

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, owner: int, waiter: Waiter) -> None:
        self._queues.setdefault(owner, deque()).append(waiter)

    def offer(self, *, everybody: bool) -> None:
        """Who is refused keeps his place: at its end he would be overtaken by all who came later, again and again. A
        bounded number of tries, for one release must not cost a walk over a thousand waiters; but an empty pool can
        wake nobody later, so then `everybody` is asked."""
        most = len(self) if everybody else TRIES
        refusals = 0
        for owner in list(self._queues):
            if refusals >= most:
                return
            queue, refused = self._queues.pop(owner), deque[Waiter]()
            try:
                while queue and refusals < most and (everybody or len(refused) < AHEAD):
                    waiter = queue.popleft()
                    if waiter():
                        refusals = 0
                    else:
                        refusals += 1
                        refused.append(waiter)
            finally:
                refused.extend(queue)
                refused.extend(self._queues.pop(owner, ()))  # who began to wait meanwhile
                if refused:
                    self._queues[owner] = refused


class Slab:
    """A span of pages cut into slots of one class, one slot at a time, as they are needed."""

    __slots__ = ("carved", "first", "pages")

    def __init__(self, first: int, pages: int) -> None:
        self.first = first
        self.pages = pages
        self.carved = 0


class Shelf:
    """One size class: its free slots, and those that some memoryview still looks into (`quarantine`)."""

    __slots__ = ("free", "quarantine", "size", "slab", "slots", "stride", "zeros")

    def __init__(self, size: int, stride: int, slots: int) -> None:
        """`size` 0 is the shelf of runs: no zeros of its own, every slot with its own size."""
        self.size = size
        self.stride = stride
        self.slots = slots  # in a slab
        self.zeros = bytes(size)
        self.free: list[Slot] = []
        self.quarantine: deque[Slot] = deque()
        self.slab: Slab | None = None  # the one being cut


class Slot:
    """`view` covers the whole slot and is never given away; leases get slices of it."""

    __slots__ = ("address", "buffer", "canary", "ledger", "shelf", "slab", "stride", "view")

    def __init__(self, view: memoryview, address: int, shelf: Shelf, slab: Slab, ledger: Ledger, stride: int) -> None:
        """The canary goes directly behind the view; all views of this slot must come from `view`."""
        self.view = view
        self.buffer = managed_buffer(view)
        self.address = address
        self.shelf = shelf
        self.slab = slab
        self.ledger = ledger
        self.stride = stride
        self.canary = c_uint64.from_address(address + len(view))
        self.canary.value = ledger.canary

    def deserted(self) -> bool:
        """Nobody has a view of it but the slot itself."""
        return getrefcount(self.buffer) == ALONE


def managed_buffer(view: memoryview) -> object:
    """The object that all memoryviews of one exporter share (CPython: a `managedbuffer`, one reference a view)."""
    found = gc.get_referents(view)
    if len(found) != 1 or type(found[0]).__name__ != "managedbuffer":
        raise Unsupported("this Python's memoryview does not show its managed buffer; the pool needs CPython")
    return found[0]


def _count_alone() -> int:
    view = memoryview(bytearray(1)).cast("B")
    held = [managed_buffer(view)]
    return getrefcount(held[0])


ALONE: Final = _count_alone()
"""`getrefcount(slot.buffer)` when only `slot.view` is left."""

GONE: Final = memoryview(b"")
"""The view of a released lease: any use of it raises ValueError."""
GONE.release()


class Lease:
    """Locked memory for a while: `view` (writable, format 'B', exactly the size asked for, zero at birth) and
    `address` (of its first byte, aligned to 16). Made by `Pool.lease` only.

    It is counted: 1 at birth, `hold` adds one, `release` (or leaving the `with` block) takes one away. At 0 the bytes
    are wiped and `view` raises ValueError; slices taken from it read zeros and keep the slot out of use until they
    are gone. A lease that is dropped without release is wiped and taken back too, with a ResourceWarning."""

    __slots__ = ("address", "holds", "owner", "slot", "view")

    view: memoryview
    address: int
    holds: int
    owner: int
    slot: Slot

    def hold(self) -> Lease:
        """One more release will be needed. Raises DoubleRelease on a lease that is gone."""
        if self.holds <= 0:
            raise DoubleRelease("this lease was released before")
        self.holds += 1
        return self

    def release(self) -> None:
        """One hold less; at 0 wipe and return. Raises DoubleRelease, or Damaged if the canary was overwritten."""
        holds = self.holds = self.holds - 1
        if holds > 0:
            return
        if holds < 0:
            self.holds = 0
            raise DoubleRelease("this lease was released before")
        slot = self.slot
        shelf = slot.shelf
        ledger = slot.ledger
        if shelf.zeros:
            slot.view[:] = shelf.zeros
        else:
            fill(slot.address, 0, len(slot.view))
        view = self.view
        self.view = GONE
        try:
            view.release()
            quiet = getrefcount(slot.buffer) == ALONE + 1  # the slot's own view, and the one released just now
        except BufferError:  # some C object holds it, an AESGCM for instance
            quiet = False
        ledger.in_use -= slot.stride
        owner = self.owner
        if owner:
            owners = ledger.owners
            left = owners[owner] - slot.stride
            if left:
                owners[owner] = left
            else:
                del owners[owner]
        if slot.canary.value != ledger.canary:
            raise Damaged("a canary behind a lease was overwritten; the slot is not used again")
        if quiet:
            shelf.free.append(slot)
        else:
            shelf.quarantine.append(slot)
        if ledger.waiters:
            ledger.wake()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        if self.holds > 0:
            self.holds = 1
            self.slot.ledger.leaked += 1
            self.release()
            warnings.warn("a lease of locked memory was dropped without release", ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        return f"<Lease at {self.address:#x}, holds {self.holds}>"
