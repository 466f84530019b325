"""The system calls of this package, through ctypes: CPython's mmap module can neither choose an address nor lock.

Every function raises OSError with the errno of the call. Constants are those of Linux's generic system call
table, the same on x86-64 and arm64 for everything used here (memfd_secret is 447 on all architectures).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

PAGE: Final = mmap.PAGESIZE

PROT_NONE: Final = 0
PROT_READ: Final = 1
PROT_WRITE: Final = 2
MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_NORESERVE: Final = 0x4000
MADV_DONTFORK: Final = 10
MADV_DONTDUMP: Final = 16
MADV_WIPEONFORK: Final = 18
O_CLOEXEC: Final = 0o2000000
SYS_MEMFD_SECRET: Final = 447
MAP_FAILED: Final = ctypes.c_void_p(-1).value

libc: Final = ctypes.CDLL(None, use_errno=True)
_mmap = libc.mmap
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_mmap.restype = ctypes.c_void_p
_madvise = libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_mlock2 = libc.mlock2
_mlock2.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_syscall = libc.syscall
_syscall.restype = ctypes.c_long

# PYFUNCTYPE keeps the GIL: a hot wipe must not hand the processor to another thread halfway.
fill = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)(("memset", libc))
"""memset(address, byte, length): the compiler of no one can leave it out, it is called through a pointer."""


def round_up(length: int, unit: int = PAGE) -> int:
    return -(-length // unit) * unit


def failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def map_memory(address: int | None, length: int, protection: int, flags: int, descriptor: int = -1) -> int:
    """mmap(2) at offset 0 of `descriptor`; returns the address."""
    found = _mmap(address, length, protection, flags, descriptor, 0)
    if found is None or found == MAP_FAILED:
        raise failure()
    return int(found)


def advise(address: int, length: int, advice: int) -> None:
    if _madvise(address, length, advice) != 0:
        raise failure()


def lock(address: int, length: int) -> None:
    """mlock2(2) without MLOCK_ONFAULT: pages are present and locked on return."""
    if _mlock2(address, length, 0) != 0:
        raise failure()


def memfd_secret() -> int:
    """A close-on-exec descriptor of memory that the kernel itself cannot reach (memfd_secret(2), Linux 5.14)."""
    descriptor = _syscall(ctypes.c_long(SYS_MEMFD_SECRET), ctypes.c_uint(O_CLOEXEC))
    if descriptor < 0:
        raise failure()
    return int(descriptor)


def reserve(length: int) -> int:
    """Address space that nobody may touch: a guard until something is mapped over it. Costs no memory."""
    return map_memory(None, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)


def view_of(address: int, length: int) -> memoryview:
    """A writable view (format 'B') of raw memory. It owns nothing: the memory must stay mapped for ever."""
    if length == 0:
        return memoryview(bytearray())
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B")


def locked_bytes() -> int:
    """How much this process has locked (VmLck of proc_pid_status(5))."""
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("VmLck:"):
                return int(line.split()[1]) * 1024
    return 0


def has_ipc_lock() -> bool:
    """Whether CAP_IPC_LOCK (14) is effective: then RLIMIT_MEMLOCK does not count (capabilities(7))."""
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> 14 & 1)
    return False
