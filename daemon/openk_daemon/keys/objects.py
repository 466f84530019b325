"""The few places where a library gives or takes a secret only as a `bytes` object: it is zeroed where it lies.

CPython only, like the pool of locked memory. The object must be fresh and ours alone: nobody else may hold it, and
it must not have been interned or used as a key of a dict.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_HEADER: Final = bytes.__basicsize__ - 1
"""Where CPython keeps the bytes of a `bytes` object."""
_SHARED: Final = 2
"""Objects shorter than this are constants that CPython shares: they are no copies, and must not be touched."""


def move(secret: bytes, into: memoryview) -> None:
    """Copy a secret that a library could only give as `bytes` into locked memory, and zero the object."""
    into[: len(secret)] = secret
    _zero(secret)


@contextmanager
def lent(secret: memoryview) -> Generator[bytes]:
    """A copy as `bytes`, for a library that takes nothing else, zeroed at the end. The library must not keep it."""
    copy = bytes(secret)
    try:
        yield copy
    finally:
        _zero(copy)


def _zero(secret: bytes) -> None:
    if len(secret) >= _SHARED:
        ctypes.memset(id(secret) + _HEADER, 0, len(secret))
