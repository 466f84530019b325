"""Landlock (landlock(7)): this process and its threads reach only the paths and TCP ports that were named.

Per thread: restrict before any other thread starts. Needs no privilege but NO_NEW_PRIVS. ABI 1 came with Linux 5.13;
what a newer ABI could forbid in addition is forbidden where the kernel knows it, and the ABI is reported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_memory.errors import Unsupported
from openk_memory.kernel import failure, libc

SYS_CREATE: Final = 444
SYS_ADD_RULE: Final = 445
SYS_RESTRICT: Final = 446
CREATE_VERSION: Final = 1
RULE_PATH: Final = 1
RULE_PORT: Final = 2

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
READ: Final = READ_FILE | READ_DIR
EVERYTHING: Final = (1 << 16) - 1
FOR_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""The rights that make sense on something that is not a folder; the kernel refuses the others there."""
BIND_TCP: Final = 1 << 0
CONNECT_TCP: Final = 1 << 1
SCOPE_ABSTRACT_SOCKETS: Final = 1 << 0
SCOPE_SIGNALS: Final = 1 << 1
FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""ABI → how many of the file rights it knows."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What stays reachable. `read`: files and folders with all below; `write`: the same, reading included; nothing may
    be executed. Ports: None leaves TCP alone, an empty sequence forbids it. `scope`: no signals to and no abstract
    sockets of processes outside (ABI 6)."""

    read: Sequence[str | os.PathLike[str]] = ()
    write: Sequence[str | os.PathLike[str]] = ()
    bind_ports: Sequence[int] | None = None
    connect_ports: Sequence[int] | None = None
    scope: bool = True


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none (not built in: ENOSYS, switched off: EOPNOTSUPP)."""
    found = libc.syscall(ctypes.c_long(SYS_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_VERSION))
    if found >= 0:
        return int(found)
    error = failure()
    if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return 0
    raise error


def restrict(allowed: Confinement) -> int:
    """Confine this thread and all it starts, for good. Returns the ABI used. NO_NEW_PRIVS must be set before.

    Raises Unsupported without Landlock or where it cannot do what was asked (ports need ABI 4), FileNotFoundError for
    a path that is not there: a wall around nothing is a mistake in the configuration."""
    version = abi()
    if version == 0:
        raise Unsupported("this kernel has no Landlock (Linux 5.13 and the boot option lsm=landlock)")
    wants_ports = allowed.bind_ports is not None or allowed.connect_ports is not None
    if wants_ports and version < 4:
        raise Unsupported(f"Landlock ABI {version} cannot restrict TCP ports; that needs ABI 4 (Linux 6.7)")
    files = (1 << FILE_RIGHTS.get(version, 16)) - 1
    ports = (0 if allowed.bind_ports is None else BIND_TCP) | (0 if allowed.connect_ports is None else CONNECT_TCP)
    scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if allowed.scope and version >= 6 else 0
    ruleset = _create(_Ruleset(files, ports, scoped), version)
    try:
        for path in allowed.read:
            _allow_path(ruleset, path, READ & files)
        for path in allowed.write:
            _allow_path(ruleset, path, EVERYTHING & files & ~EXECUTE)
        for right, numbers in ((BIND_TCP, allowed.bind_ports), (CONNECT_TCP, allowed.connect_ports)):
            for number in numbers or ():
                _add(ruleset, RULE_PORT, _PortRule(right, number))
        _check(libc.syscall(ctypes.c_long(SYS_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)
    return version


def runtime_paths() -> list[str]:
    """What this interpreter must still read after confinement: its libraries (late imports), the C library's and its
    configuration, time zones, randomness, and its own /proc entries. Only those that exist."""
    # /proc as a whole: what a process may see there is the kernel's ptrace check, and peers are identified by it.
    wanted = [sys.prefix, sys.base_prefix, *sys.path, "/usr", "/lib", "/lib64", "/etc", "/proc",
              "/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/urandom", "/dev/null", "/dev/zero"]  # fmt: skip
    return [path for path in dict.fromkeys(wanted) if path and os.path.exists(path)]


def _create(attributes: _Ruleset, version: int) -> int:
    # An older kernel takes a shorter structure, or longer ones with zeros at the end (landlock_create_ruleset(2)).
    size = 8 if version < 4 else 16 if version < 6 else 24
    return _check(
        libc.syscall(ctypes.c_long(SYS_CREATE), ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    )


def _allow_path(ruleset: int, path: str | os.PathLike[str], rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= FOR_FILES
        _add(ruleset, RULE_PATH, _PathRule(rights, parent))
    finally:
        os.close(parent)


def _add(ruleset: int, kind: int, rule: _PathRule | _PortRule) -> None:
    _check(
        libc.syscall(
            ctypes.c_long(SYS_ADD_RULE),
            ctypes.c_int(ruleset),
            ctypes.c_int(kind),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    )


def _check(result: int) -> int:
    if result < 0:
        raise failure()
    return int(result)
