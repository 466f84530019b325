"""What can go wrong with locked memory. No text here ever carries bytes of a region, only sizes and limits."""

from __future__ import annotations


class LockedMemoryError(Exception):
    """Base of all errors of this package."""


class LockLimitTooLow(LockedMemoryError):
    """The kernel refused to lock more pages: RLIMIT_MEMLOCK is too low (getrlimit(2)).

    `needed`, `limit` and `locked` are bytes: what this request asked for, the soft limit, and what the process
    had locked already (VmLck in /proc/self/status)."""

    def __init__(self, needed: int, limit: int, locked: int) -> None:
        self.needed = needed
        self.limit = limit
        self.locked = locked
        wanted = needed + locked
        super().__init__(
            f"cannot lock {needed} bytes of memory: RLIMIT_MEMLOCK is {limit} bytes and {locked} are locked already, "
            f"so it must be at least {wanted}. Grant it with LimitMEMLOCK={wanted} in the systemd unit, with "
            f"`ulimit -l {-(-wanted // 1024)}` in the shell that starts the process (raising the hard limit in "
            f"/etc/security/limits.conf first if it is lower), or with --ulimit memlock={wanted} of a container.",
        )


class Unsupported(LockedMemoryError):
    """This kernel lacks something without which locked memory would not be what it promises."""


class Damaged(LockedMemoryError):
    """A canary was overwritten: some code wrote past its buffer. The process should stop."""


class DoubleRelease(LockedMemoryError):
    """A lease or region was released more often than it was held: a bug of the caller."""


class Exhausted(LockedMemoryError):
    """No locked memory left for this request. There is never a fallback to memory that is not locked.

    `possible` is False when the request can never succeed, however long one waits (it is larger than the pool or
    than the owner's budget); True when memory comes back as others release theirs. Sizes in bytes."""

    def __init__(
        self, text: str, *, requested: int, in_use: int, capacity: int, owner: int | None, possible: bool
    ) -> None:
        self.requested = requested
        self.in_use = in_use
        self.capacity = capacity
        self.owner = owner
        self.possible = possible
        super().__init__(text)
