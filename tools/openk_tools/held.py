"""Where the command line keeps what the user gives it: locked memory, into which the kernel writes it.

Nothing of it is copied on the way, but where more comes through a pipe than there was room for: a copy goes through
vector registers, which may be spilled to the stack, where nothing wipes them. What is read lies where it was read, and
is cut short by slicing views.
"""

from __future__ import annotations

from openk_memory.errors import LockedMemoryError
from openk_memory.region import Region
from openk_tools.values import Value


def room(size: int) -> memoryview:
    """`size` bytes (at least 1) of locked memory, zero. Where the user's limit for it (RLIMIT_MEMLOCK) or the kernel
    allows no more: of ordinary memory. `wipe` it after use; it stays locked until the process ends."""
    try:
        return Region(size).view
    except LockedMemoryError:
        return memoryview(bytearray(size))


def wipe(*values: Value) -> None:
    """Overwrite every buffer among `values` that can be, and those inside maps and lists; leave anything else.
    By a copy of as many zeros: they go through the vector registers that a copy of the value went through."""
    for value in values:
        if isinstance(value, bytearray) or (isinstance(value, memoryview) and not value.readonly):
            value[:] = bytes(len(value))
        elif isinstance(value, dict):
            wipe(*value.values())
        elif isinstance(value, list):
            wipe(*value)


def trim(value: memoryview) -> memoryview:
    """`value` without one line end behind it (`\\n` or `\\r\\n`), which is wiped."""
    length = len(value)
    if length and value[length - 1] == ord("\n"):
        length -= 2 if length > 1 and value[length - 2] == ord("\r") else 1
    wipe(value[length:])
    return value[:length]
