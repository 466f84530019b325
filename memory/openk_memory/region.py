"""Locked regions: memory that is never swapped, dumped or inherited, with walls around it.

    reserve()  ┌────────────┬──────────────────────────────┬─ ─ ─ ─ ─ ─ ─ ─┬────────────┐
               │ guard page │ committed: locked, read-write│ not committed │ guard page │   guards: PROT_NONE
               └────────────┴──────────────────────────────┴─ ─ ─ ─ ─ ─ ─ ─┴────────────┘

    Region     ┌────────────┬──────┬────────┬───────────────┬────────┬────────────┐
               │ guard page │ slack│ canary │ size bytes    │ canary │ guard page │        canary: 8 random bytes, twice
               └────────────┴──────┴────────┴───────────────┴────────┴────────────┘

Two kinds of memory, the best one the kernel has (each with its recipe, all of it or none of it):
 - memfd_secret(2) + MADV_DONTFORK: not in the kernel's own map, so even root's /proc/PID/mem cannot read it;
 - anonymous mmap + mlock2 + MADV_DONTDUMP + MADV_WIPEONFORK, where memfd_secret is missing or switched off.

Address space is never unmapped while the process lives: a stale memoryview must read zeros, not crash the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import secrets
from enum import StrEnum
from functools import cache
from typing import Final

from openk_memory import kernel
from openk_memory.errors import Damaged, DoubleRelease, LockLimitTooLow, Unsupported
from openk_memory.kernel import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PAGE, PROT_READ, PROT_WRITE

CANARY: Final = secrets.randbits(64) | 1
"""This process's canary. Not a secret: knowing it helps nobody who can already write here."""
CANARY_BYTES: Final = 8
EDGE: Final = 16  # a canary and padding, so that what follows stays aligned to 16 bytes


class Kind(StrEnum):
    SECRET = "memfd_secret"  # noqa: S105 - the name of a system call
    LOCKED = "mlock2"


@cache
def best_kind() -> Kind:
    """What this kernel offers. ENOSYS: no memfd_secret here; EPERM: a seccomp filter forbids it."""
    try:
        descriptor = kernel.memfd_secret()
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return Kind.LOCKED
        raise
    os.close(descriptor)
    return Kind.SECRET


def why_not_secret() -> str:
    """Why `best_kind` is not the best there is, what that costs, and how to get it; for the log."""
    try:
        os.close(kernel.memfd_secret())
    except OSError as error:
        if error.errno == errno.ENOSYS:
            why = "this kernel has no memfd_secret: Linux 5.14, before 6.5 with the boot option secretmem.enable=1"
        else:
            why = f"memfd_secret is denied ({error.strerror}): allow it in the seccomp profile of the container or unit"
        return f"locked memory can be read by root through /proc/PID/mem, because {why}"
    return "this kernel has memfd_secret"


def _commit_secret(address: int, length: int) -> None:
    descriptor = kernel.memfd_secret()
    try:
        os.ftruncate(descriptor, length)
        kernel.map_memory(address, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor)
    finally:
        os.close(descriptor)  # an open descriptor would survive fork, and a child could map it
    kernel.advise(address, length, kernel.MADV_DONTFORK)
    kernel.fill(address, 0, length)  # pages now, not at the first secret


def _commit_locked(address: int, length: int) -> None:
    kernel.map_memory(address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    kernel.advise(address, length, kernel.MADV_DONTDUMP)
    kernel.advise(address, length, kernel.MADV_WIPEONFORK)
    kernel.lock(address, length)


def limit_error(needed: int) -> LockLimitTooLow:
    return LockLimitTooLow(needed, resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], kernel.locked_bytes())


class Reservation:
    """A guarded range of address space whose front part is committed (locked and writable), growing on demand.

    Pages of a reservation count against RLIMIT_MEMLOCK only once committed."""

    __slots__ = ("_base", "address", "capacity", "committed", "kind")

    def __init__(self, capacity: int, kind: Kind | None = None) -> None:
        """`capacity` in bytes is rounded up to pages. Nothing is locked yet."""
        self.capacity = kernel.round_up(max(capacity, 1))
        self.kind = best_kind() if kind is None else kind
        self.committed = 0
        self._base = kernel.reserve(self.capacity + 2 * PAGE)
        self.address = self._base + PAGE

    def commit(self, upto: int) -> None:
        """Lock everything below offset `upto` (bytes, rounded up to pages). All or nothing.

        Raises LockLimitTooLow; ValueError beyond the capacity; Unsupported if a step of the recipe fails."""
        upto = kernel.round_up(upto)
        if upto > self.capacity:
            raise ValueError("commit beyond the reservation")
        length = upto - self.committed
        if length <= 0:
            return
        address = self.address + self.committed
        try:
            (_commit_secret if self.kind is Kind.SECRET else _commit_locked)(address, length)
        except OSError as error:
            self._guard(address, length)
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EPERM):
                raise limit_error(length) from None
            raise Unsupported(f"{self.kind}: {error.strerror}") from error
        self.committed = upto

    def retire(self, protection: int = PROT_READ) -> None:
        """Wipe, then give the lock quota back: empty pages take the place of the locked ones, so that a stale view
        reads zeros. They are read-only: a late write of a secret into unlocked memory must crash, not succeed."""
        if self.committed:
            kernel.fill(self.address, 0, self.committed)
            self.replace(protection)
            self.committed = 0

    def replace(self, protection: int) -> None:
        """Map empty, unlocked pages over the committed part (after a fork it is not there any more)."""
        if self.committed:
            kernel.map_memory(self.address, self.committed, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)

    def _guard(self, address: int, length: int) -> None:
        kernel.map_memory(
            address, length, kernel.PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | kernel.MAP_NORESERVE
        )


class Region:
    """`size` bytes of locked memory for one long-lived purpose (anything short-lived leases from a Pool).

    `view` is writable, format 'B', exactly `size` long and zero at birth; `address` is its first byte, aligned to 16.
    Whoever made it calls `release` (or leaves its `with` block): that wipes it. 27-64 microseconds to make."""

    __slots__ = ("_after", "_before", "_released", "_reservation", "address", "size", "view")

    def __init__(self, size: int, kind: Kind | None = None) -> None:
        if size <= 0:
            raise ValueError("a region has at least one byte")
        self.size = size
        room = kernel.round_up(size, EDGE)
        self._reservation = Reservation(room + 2 * EDGE, kind)
        self._reservation.commit(self._reservation.capacity)
        end = self._reservation.address + self._reservation.capacity
        # At the far end: an overrun meets the canary and then the guard page.
        self.address = end - EDGE - room
        self.view = kernel.view_of(self.address, size)
        self._before = ctypes.c_uint64.from_address(self.address - CANARY_BYTES)
        self._after = ctypes.c_uint64.from_address(self.address + size)  # not aligned: one byte too far is seen
        self._before.value = self._after.value = CANARY
        self._released = False

    @property
    def kind(self) -> Kind:
        return self._reservation.kind

    def check(self) -> None:
        """Raises Damaged if somebody wrote over an edge."""
        if self._before.value != CANARY or self._after.value != CANARY:
            raise Damaged("a canary beside a locked region was overwritten")

    def release(self) -> None:
        """Wipe and give the lock quota back. Later reads of old views see zeros; later writes are a crash.

        Raises Damaged (after wiping) and DoubleRelease."""
        if self._released:
            raise DoubleRelease("this region was released before")
        self._released = True
        try:
            self.check()
        finally:
            self._reservation.retire()

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
