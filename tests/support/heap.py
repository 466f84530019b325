"""Does a secret lie anywhere in this process? Searched in place, without copying a byte."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None)
_libc.memmem.restype = ctypes.c_void_p
_libc.memmem.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
_MASK = 0xA5


def fresh(size: int) -> bytearray:
    """Random bytes that lie here and nowhere else: drawn one by one, as `os.urandom(size)` would stay behind."""
    secret = bytearray(size)
    for i in range(size):
        secret[i] = os.urandom(1)[0]
    return secret


def masked(secret: bytearray) -> bytes:
    """What a test may keep of a secret it looks for."""
    return bytes(byte ^ _MASK for byte in secret)


def wipe(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))


def copies(mask: bytes) -> int:
    """How often the secret behind the mask lies in writable memory, locked or not; the needle itself not counted."""
    needle = bytearray(len(mask))  # of its whole size at once: one that grows leaves its earlier selves behind
    for i, byte in enumerate(mask):
        needle[i] = byte ^ _MASK
    address = ctypes.addressof(ctypes.c_char.from_buffer(needle))
    found = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access = line.split()[:2]
        if not access.startswith("rw"):
            continue
        start, end = (int(part, 16) for part in span.split("-"))
        while (hit := _libc.memmem(start, end - start, address, len(needle))) is not None:
            found += hit != address
            start = hit + 1
    wipe(needle)
    return found
