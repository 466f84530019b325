"""A deny list of system calls that neither daemon nor worker ever makes, for processes without systemd around them.

Under systemd the unit's SystemCallFilter= (an allow list) is the main wall and this one stands behind it. A denied call
fails with EPERM: a vendor library that probes for a call survives, an attacker gains nothing. Calls of a foreign
architecture (32-bit, x32) kill the process: that is libseccomp's default and stays so.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Final

from openk_memory.errors import Unsupported

_RUNS: Final = "runs another program inside these privileges"
_DEBUGS: Final = "reads or writes the memory of a process"
_MOUNTS: Final = "changes what paths mean"
_ESCAPES: Final = "changes namespace or root"
_KERNEL: Final = "loads code into the kernel or replaces it"
_KEYRING: Final = "kernel keyrings: nothing here uses them, their bugs were many"
_BYPASS: Final = "does system calls that this filter never sees"
_HARDWARE: Final = "reaches hardware ports"
_CLOCK: Final = "moves the clock that certificates, sessions and audit records rely on"
_HOST: Final = "changes the host, not the process"

DENIED: Final[dict[str, str]] = {
    "execve": _RUNS,
    "execveat": _RUNS,
    "uselib": _RUNS,
    "ptrace": _DEBUGS,
    "process_vm_readv": _DEBUGS,
    "process_vm_writev": _DEBUGS,
    "process_madvise": _DEBUGS,
    "pidfd_getfd": "takes descriptors, and with them hand-off regions, out of another process",
    "kcmp": "tells how two processes share kernel objects; only debuggers and checkpointers ask",
    "perf_event_open": "observes branches and caches of others and of the kernel",
    "userfaultfd": "stops kernel code in the middle of a copy, the favourite tool of exploits",
    "bpf": "loads programs into the kernel",
    "add_key": _KEYRING,
    "request_key": _KEYRING,
    "keyctl": _KEYRING,
    "io_uring_setup": _BYPASS,
    "io_uring_enter": _BYPASS,
    "io_uring_register": _BYPASS,
    "mount": _MOUNTS,
    "umount2": _MOUNTS,
    "move_mount": _MOUNTS,
    "open_tree": _MOUNTS,
    "fsopen": _MOUNTS,
    "fsconfig": _MOUNTS,
    "fsmount": _MOUNTS,
    "fspick": _MOUNTS,
    "mount_setattr": _MOUNTS,
    "pivot_root": _ESCAPES,
    "chroot": _ESCAPES,
    "unshare": _ESCAPES,
    "setns": _ESCAPES,
    "open_by_handle_at": "opens files past the directory checks (a known way out of containers)",
    "init_module": _KERNEL,
    "finit_module": _KERNEL,
    "delete_module": _KERNEL,
    "kexec_load": _KERNEL,
    "kexec_file_load": _KERNEL,
    "iopl": _HARDWARE,
    "ioperm": _HARDWARE,
    "modify_ldt": "builds segments for code of another width",
    "personality": "switches address randomisation off",
    "settimeofday": _CLOCK,
    "clock_settime": _CLOCK,
    "adjtimex": _CLOCK,
    "clock_adjtime": _CLOCK,
    "reboot": _HOST,
    "swapon": _HOST,
    "swapoff": _HOST,
    "acct": _HOST,
    "quotactl": _HOST,
    "syslog": "the kernel's log and addresses",
    "sethostname": _HOST,
    "setdomainname": _HOST,
    "vhangup": _HOST,
    "move_pages": "moves pages of other processes, a side channel",
    "migrate_pages": "moves pages of other processes, a side channel",
}
"""Name of the call and why it is denied."""

CLONE_THREAD: Final = 0x00010000
PROT_EXEC: Final = 4
SHM_EXEC: Final = 0o100000
CODE: Final = (
    ("mmap", 2, PROT_EXEC),
    ("mprotect", 2, PROT_EXEC),
    ("pkey_mprotect", 2, PROT_EXEC),
    ("shmat", 2, SHM_EXEC),
)
"""What makes memory executable: call, argument, bit."""

ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000  # | errno
MASKED_EQUAL: Final = 7
UNKNOWN: Final = -1  # __NR_SCMP_ERROR


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp: argument number, comparison, and for MASKED_EQUAL the mask and the value."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@cache
def library() -> ctypes.CDLL:
    """libseccomp, loaded by its soname. Not through pyseccomp: importing that runs `ldconfig` as a child process, which
    a unit that denies execve answers with a failure. Call it early: later the library's path may be out of reach.

    Raises Unsupported if it is not installed."""
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Unsupported("libseccomp.so.2 is not installed (Debian: apt install libseccomp2)") from None
    found.seccomp_init.argtypes = (ctypes.c_uint32,)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_release.argtypes = (ctypes.c_void_p,)
    found.seccomp_release.restype = None
    found.seccomp_load.argtypes = (ctypes.c_void_p,)
    found.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    found.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Compare),
    )
    return found


def load_deny_list(*, forbid_children: bool = True, forbid_code: bool = False) -> tuple[str, ...]:
    """Load the filter for this thread and all it starts; cannot be undone. 0.14 ms.

    `forbid_children` also denies new processes: clone without CLONE_THREAD; clone3, whose flags a filter cannot see,
    answers ENOSYS, so that the C library falls back to clone. `forbid_code` also denies to make memory executable, so
    that no library can be loaded any more, whoever's it is: everything must be imported before. Returns the names that
    this libseccomp does not know, for the report. Raises Unsupported without libseccomp, OSError where the kernel takes
    no filter."""
    seccomp = library()
    context = seccomp.seccomp_init(ALLOW)
    if not context:
        raise Unsupported("libseccomp could not make a filter")
    try:
        unknown = tuple(name for name in DENIED if not _deny(context, name, errno.EPERM))
        if forbid_children:
            _deny(context, "clone", errno.EPERM, _Compare(0, MASKED_EQUAL, CLONE_THREAD, 0))
            for name in ("fork", "vfork"):  # absent on newer architectures
                _deny(context, name, errno.EPERM)
            _deny(context, "clone3", errno.ENOSYS)
        if forbid_code:
            for name, argument, bit in CODE:
                _deny(context, name, errno.EPERM, _Compare(argument, MASKED_EQUAL, bit, bit))
        if refused := seccomp.seccomp_load(context):
            raise OSError(-refused, "the kernel refused the seccomp filter")
    finally:
        seccomp.seccomp_release(context)
    return unknown


def _deny(context: int, name: str, answer: int, compare: _Compare | None = None) -> bool:
    """Add one rule; False if libseccomp does not know the call."""
    seccomp = library()
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number == UNKNOWN:
        return False
    count = 0 if compare is None else 1
    result = seccomp.seccomp_rule_add_array(context, ERRNO | answer, number, count, compare and ctypes.byref(compare))
    _check(result, f"libseccomp refused the rule for {name}")
    return True


def _check(result: int, text: str) -> None:
    if result != 0:
        raise Unsupported(f"{text}: {os.strerror(-result)}")
