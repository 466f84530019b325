"""Freed blocks of the C heap that still hold what they held.

Measured: libcrypto's ML-KEM frees the shared secret without wiping it; half of it stays in a free block (the allocator
writes its own links over the rest). Whoever asks malloc for blocks of that size is given it, and may wipe it.
"""

from __future__ import annotations

import ctypes
from typing import Final

_SIZES: Final = (24, 40, 88)
"""Bytes: the allocator's classes that a secret of 32 bytes, alone or in a small structure, was found in."""
_COUNT: Final = 32
"""Blocks of each: more than the allocator keeps ready for a thread (7)."""

_libc = ctypes.CDLL(None)
_libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
_libc.calloc.restype = ctypes.c_void_p
_libc.free.argtypes = (ctypes.c_void_p,)
_libc.free.restype = None


def wipe_freed() -> None:
    """Call it in the thread that freed the secret."""
    blocks = [_libc.calloc(1, size) for size in _SIZES for _ in range(_COUNT)]
    for block in blocks:
        _libc.free(block)
