"""Linux capabilities (capabilities(7)) of this process: reading them, and dropping all but a few."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from openk_memory.kernel import failure, libc

VERSION_3: Final = 0x20080522
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


class Capability(IntEnum):
    """Those a caller may have a reason to keep. Names and numbers of linux/capability.h."""

    CHOWN = 0  # give the socket its group
    IPC_LOCK = 14  # lock memory beyond RLIMIT_MEMLOCK
    SYS_PTRACE = 19  # read the executable of a peer of another user
    SYS_RESOURCE = 24  # raise limits


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def permitted() -> int:
    """The permitted set of this thread, one bit a capability."""
    _, data = _get()
    return int(data[0].permitted) | int(data[1].permitted) << 32


def drop_all_but(keep: Iterable[Capability] = ()) -> None:
    """Leave only `keep` (as far as held) in the permitted and effective set, nothing inheritable, nothing ambient.
    Needs no privilege. Of this thread: before others start."""
    header, data = _get()
    mask = sum(1 << number for number in set(keep)) & permitted()
    for half in (0, 1):
        bits = mask >> (32 * half) & 0xFFFFFFFF
        data[half].effective = data[half].permitted = bits
        data[half].inheritable = 0
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise failure()
    if libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0:
        raise failure()


def drop_bounding(keep: Iterable[Capability] = ()) -> None:
    """Take all but `keep` out of the bounding set, so that no later program could gain them. Before `drop_all_but`:
    raises PermissionError without CAP_SETPCAP."""
    for number in _bounding() - set(keep):
        if libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            raise failure()


def bounding_is_empty(keep: Iterable[Capability] = ()) -> bool:
    """Raises OSError where the kernel does not say."""
    return not _bounding() - set(keep)


def _bounding() -> set[int]:
    """The bounding set of this thread, by number."""
    found: set[int] = set()
    for number in range(64):
        held = libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0)
        if held < 0:
            error = failure()
            if error.errno != errno.EINVAL:  # a filter: that none is left must not be believed
                raise error
            break  # beyond the kernel's last capability
        if held:
            found.add(number)
    return found


def _get() -> tuple[_Header, ctypes.Array[_Data]]:
    header = _Header(VERSION_3, 0)
    data = (_Data * 2)()
    if libc.capget(ctypes.byref(header), ctypes.byref(data)) != 0:
        error = failure()
        raise error if error.errno != errno.EINVAL else OSError(errno.ENOSYS, "no 64-bit capabilities")
    return header, data
