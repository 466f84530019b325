"""What waits in the kernel for a process: the receive queues of its sockets, and files that it has open but nobody can name.

A socket's queue is read without taking anything out of it: pidfd_getfd(2) gives the searcher the same socket, and recv(2)
with MSG_PEEK, moved on by SO_PEEK_OFF (socket(7)), shows what lies there. What one process has sent and the other not
received lies in the receiver's queue, so looking at both ends sees everything that is under way between them.

Needs the right to trace, as openk's scan does. It must not run while the process reads: freeze or stop it, or look when
it is idle.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.support.scan import Hit, forms

SYS_PIDFD_GETFD: Final = 438
SO_PEEK_OFF: Final = 42
ROOM: Final = 4 << 20
_SOCKET: Final = re.compile(r"socket:\[\d+\]")
_libc = ctypes.CDLL(None, use_errno=True)


def sockets(pid: int) -> Iterator[tuple[str, socket.socket]]:
    """The sockets of `pid`, each opened here too, with their names in /proc; closed again behind each."""
    pidfd = os.pidfd_open(pid)
    try:
        for number, name in _descriptors(pid):
            if not _SOCKET.fullmatch(name):
                continue
            ours = _libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
            if ours < 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            with socket.socket(fileno=ours) as found:
                yield f"{name} (descriptor {number})", found
    finally:
        os.close(pidfd)


def waiting(sock: socket.socket) -> bytes:
    """What lies in its receive queue, left there."""
    if sock.family != socket.AF_UNIX or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return b""
    parts: list[bytes] = []
    with socket.socket(fileno=os.dup(sock.fileno())) as again:  # without a timeout of Python's: that would wait
        again.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        with suppress(OSError):  # nothing more, or not connected
            while part := again.recv(ROOM, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                parts.append(part)
        again.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
    return b"".join(parts)


def backlog(pid: int, needles: Sequence[bytes]) -> list[Hit]:
    """Needles in the queues of its sockets, and in its open files that have no name any more."""
    hits: list[Hit] = []
    for name, sock in sockets(pid):
        hits += find(name, waiting(sock), needles)
    for number, name in _descriptors(pid):
        if name.endswith(" (deleted)"):
            with suppress(OSError):
                hits += find(name, Path(f"/proc/{pid}/fd/{number}").read_bytes(), needles)
    return hits


def queued_bytes(pid: int) -> int:
    """How much lies in the queues of its sockets."""
    return sum(len(waiting(sock)) for _, sock in sockets(pid))


def find(place: str, content: bytes, needles: Sequence[bytes]) -> Iterator[Hit]:
    """One hit for each form of each needle that is in `content`."""
    for number, needle in enumerate(needles):
        for form, text in forms(needle):
            at = content.find(text)
            if at >= 0:
                yield Hit(number, form, place, at, locked=False)


def _descriptors(pid: int) -> Iterator[tuple[int, str]]:
    for entry in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda entry: int(entry.name)):
        with suppress(FileNotFoundError):
            yield int(entry.name), os.readlink(entry)
