"""The hand-off region: locked memory shared by exactly two processes, the daemon and one worker.

memfd_secret would do, but the worker's vendor library may hand its buffers to the kernel (O_DIRECT, USB), which
refuses such pages; so it is a sealed memfd, locked by both sides, kept out of cores and of forked children.

    ┌────────────┬─────────────────────────────────┬────────────┐
    │ guard page │ size bytes, rounded up to pages │ guard page │     the same pages in both processes
    └────────────┴─────────────────────────────────┴────────────┘

Sealed with F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL (fcntl(2)): otherwise the other side could cut the file short
and every access here would be a SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Final

from openk_memory import kernel
from openk_memory.errors import DoubleRelease, Unsupported
from openk_memory.kernel import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PAGE, PROT_READ, PROT_WRITE
from openk_memory.region import limit_error

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
MFD_NOEXEC_SEAL: Final = 0x8  # Linux 6.3: never executable


class HandOff:
    """`view` (writable, format 'B', exactly `size` long), `address`, `size`, and `fd` to pass by SCM_RIGHTS.

    `fd` belongs to this object; `close_fd` when no further process will be given it, `close` at the end of all.
    Whoever took bytes out of the region wipes them there (`wiping.wipe`)."""

    __slots__ = ("_closed", "address", "fd", "size", "view")

    def __init__(self, fd: int, size: int) -> None:
        """Maps and locks `fd`; use `create` or `attach`."""
        length = kernel.round_up(size)
        self.address = kernel.reserve(length + 2 * PAGE) + PAGE
        try:
            kernel.map_memory(self.address, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd)
            kernel.advise(self.address, length, kernel.MADV_DONTFORK)
            kernel.advise(self.address, length, kernel.MADV_DONTDUMP)
            kernel.lock(self.address, length)
        except OSError as error:
            _cover(self.address, length, kernel.PROT_NONE)
            if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EPERM):
                raise limit_error(length) from None
            raise Unsupported(f"hand-off region: {error.strerror}") from error
        self.fd = fd
        self.size = size
        self.view = kernel.view_of(self.address, size)
        self._closed = False

    @classmethod
    def create(cls, size: int) -> HandOff:
        """A new region of `size` bytes (rounded up to pages inside), zero. Raises LockLimitTooLow, Unsupported."""
        if size <= 0:
            raise ValueError("a hand-off region has at least one byte")
        fd = _memfd()
        try:
            os.ftruncate(fd, kernel.round_up(size))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            return cls(fd, size)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int, size: int) -> HandOff:
        """The region that the other process created with the same `size`. Takes `fd` over once it succeeds; on an
        error the caller still has it. Raises Unsupported for a descriptor that is not such a region."""
        if size <= 0:
            raise ValueError("a hand-off region has at least one byte")
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            raise Unsupported("the descriptor is not a memfd") from None
        if seals & SEALS != SEALS:
            raise Unsupported("the hand-off region is not sealed against resizing")
        if seals & (fcntl.F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
            raise Unsupported("the hand-off region is sealed against writing")
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != kernel.round_up(size):
            raise Unsupported(f"the hand-off region has {found.st_size} bytes, not {kernel.round_up(size)}")
        os.set_inheritable(fd, False)
        return cls(fd, size)

    def close_fd(self) -> None:
        """Close the descriptor; the memory stays. Harmless when closed before."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Wipe (for both processes), give the lock quota back and close the descriptor. Old views read zeros, writing
        through them is a crash. Raises DoubleRelease the second time."""
        if self._closed:
            raise DoubleRelease("this hand-off region was closed before")
        self._closed = True
        length = kernel.round_up(self.size)
        kernel.fill(self.address, 0, length)
        _cover(self.address, length, PROT_READ)
        self.close_fd()

    def __enter__(self) -> HandOff:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


F_SEAL_FUTURE_WRITE: Final = 0x10  # not in fcntl before Python 3.13


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("openk hand-off", flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create("openk hand-off", flags)


def _cover(address: int, length: int, protection: int) -> None:
    kernel.map_memory(address, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
