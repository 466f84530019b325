"""Limits of this process, raised where it may raise them; RLIMIT_MEMLOCK is told of before anything is locked.

Later it would show as requests refused under load, weeks after the start.
"""

from __future__ import annotations

import resource

from openk_memory import kernel
from openk_memory.errors import LockLimitTooLow, Unsupported


def allow_locking(needed: int) -> LockLimitTooLow | None:
    """Make RLIMIT_MEMLOCK at least `needed` bytes, or as many as this process may; None, or what stands in the way.
    CAP_IPC_LOCK, which lifts the limit, does not count: hardening drops it. Raises Unsupported."""
    soft, hard = limit_of(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    if hard == resource.RLIM_INFINITY or hard >= needed:
        granted = set_limit(resource.RLIMIT_MEMLOCK, hard, hard)
    else:
        granted = set_limit(resource.RLIMIT_MEMLOCK, needed, needed)  # CAP_SYS_RESOURCE
        if not granted:
            set_limit(resource.RLIMIT_MEMLOCK, hard, hard)
    if granted:
        return None
    return LockLimitTooLow(needed, limit_of(resource.RLIMIT_MEMLOCK)[0], kernel.locked_bytes())


def set_limit(limit: int, soft: int, hard: int) -> bool:
    """setrlimit(2), unless it is so already; False where this process may not. Python tells a refusal by ValueError."""
    if limit_of(limit) == (soft, hard):
        return True
    try:
        resource.setrlimit(limit, (soft, hard))
    except (OSError, ValueError):
        return False
    return True


def limit_of(limit: int) -> tuple[int, int]:
    """Soft and hard. Raises Unsupported where a filter denies even to ask."""
    try:
        return resource.getrlimit(limit)
    except OSError as error:
        raise Unsupported(
            f"limits of the process cannot be read ({error.strerror}): allow prlimit64 in the seccomp profile of the "
            "container or unit"
        ) from None
