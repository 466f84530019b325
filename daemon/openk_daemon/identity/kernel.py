"""What Linux tells of the other end of a Unix socket. Constants that Python's socket module lacks are from
include/uapi/asm-generic/socket.h and include/uapi/linux/pidfd.h."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
from typing import Final

SO_PEERGROUPS: Final = 59  # Linux 4.13
SO_PEERPIDFD: Final = 77  # Linux 6.5
_GROUPS_MOST: Final = 65_536  # NGROUPS_MAX

# struct pidfd_info, first published form (PIDFD_INFO_SIZE_VER0, Linux 6.13), 64 bytes:
#
#   0       8          16   20    24    28                             60          64
#   | mask  | cgroupid | pid | tgid | ppid | 8 uids, gids of all kinds   | exit_code |
#
# The kernel sets in `mask` what it filled in.
_INFO: Final = struct.Struct("=QQ 12I")
_INFO_CGROUP: Final = 1 << 2
_PIDFD_GET_INFO: Final = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, ...)
_CREDENTIALS: Final = struct.Struct("=iII")

_libc: Final = ctypes.CDLL(None, use_errno=True)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of whoever called connect(), or socketpair(). Raises OSError."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid


def peer_groups(sock: socket.socket) -> tuple[int, ...]:
    """Its supplementary groups at that time, sorted. Raises OSError."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)  # Python's own limit: 256 groups
    except OSError as error:
        if error.errno == errno.ENODATA:
            return ()
        if error.errno != errno.ERANGE:
            raise
        data = _many_groups(sock)
    return tuple(sorted(struct.unpack(f"={len(data) // 4}I", data)))


def _many_groups(sock: socket.socket) -> bytes:
    buffer = ctypes.create_string_buffer(4 * _GROUPS_MOST)
    length = ctypes.c_uint32(len(buffer))
    arguments = (sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, buffer, ctypes.byref(length))
    if _libc.getsockopt(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw[: length.value]


def peer_pidfd(sock: socket.socket) -> int | None:
    """A descriptor of the process that connected, which no later process can take the place of; the caller closes
    it. None where the kernel is older than 6.5. Raises OSError, where the process is gone too."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        raise


def is_alive(pidfd: int) -> bool:
    """Whether the process has not ended: as long as it has not, its pid is its own."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def cgroup_id(pidfd: int) -> int | None:
    """The id of the process's cgroup (v2), which is the inode of the cgroup's folder and never used again while the
    host runs. None where the kernel does not tell: older than 6.13, or the process is not in our namespace."""
    request = bytearray(_INFO.size)
    struct.pack_into("=Q", request, 0, _INFO_CGROUP)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask, cgroup, *_ = _INFO.unpack(request)
    return cgroup if mask & _INFO_CGROUP else None
