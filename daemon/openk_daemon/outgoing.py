"""Replies on their way out of one connection: bytes, and leases of locked memory that are given back once sent."""

from __future__ import annotations

import socket
from typing import Final

from openk_memory.lease import Lease

SEND_MOST: Final = 64
"""Buffers in one sendmsg; IOV_MAX is 1024, but more gain nothing."""


class Outgoing:
    """Owns the leases it is given until they are sent or dropped. `replies`: what is not sent yet, first part first."""

    __slots__ = ("_leases", "replies")

    def __init__(self) -> None:
        self.replies: list[bytes | memoryview] = []
        self._leases: list[Lease] = []

    @property
    def secret(self) -> bool:
        """Whether an answer that holds a secret waits."""
        return bool(self._leases)

    def add(self, reply: bytes | Lease) -> None:
        if isinstance(reply, bytes):
            self.replies.append(reply)
        else:
            self.replies.append(reply.view)
            self._leases.append(reply)

    def send(self, sock: socket.socket) -> int:
        """Send as much as goes in one call; the number of bytes. Something must be there. Raises BlockingIOError,
        OSError."""
        replies = self.replies
        if self._leases:
            sent = sock.sendmsg(replies[:SEND_MOST])
        else:
            if len(replies) > 1:
                replies[:] = [b"".join(replies)]
            sent = sock.send(replies[0])
        left = sent
        while replies and left >= len(replies[0]):
            left -= len(replies.pop(0))
        if left:
            replies[0] = memoryview(replies[0])[left:]
        if not replies:
            self._release()
        return sent

    def drop(self) -> None:
        """Nobody takes them any more."""
        self.replies.clear()
        self._release()

    def _release(self) -> None:
        for lease in self._leases:
            lease.release()
        self._leases.clear()
