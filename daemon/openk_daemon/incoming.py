"""What arrives on one connection, on its way to be read: received straight into locked memory, none of it between
messages."""

from __future__ import annotations

from typing import Final

from openk_memory.lease import Lease
from openk_memory.pool import Pool

CHUNK: Final = 16 << 10
"""Bytes of the first buffer of a message: one slot of the pool, dozens of common requests."""
ROOM_LEAST: Final = 1 << 10
"""Bytes for which it is worth to receive once more before the message moves to a larger buffer."""
_NOTHING: Final = memoryview(b"")


class Incoming:
    """Owns its lease, which requests hold too until they are answered. `begin` to `end`: what is not read yet."""

    __slots__ = ("_owner", "_pool", "begin", "end", "lease")

    def __init__(self, pool: Pool, owner: int) -> None:
        """`owner`: whose budget of locked memory it is."""
        self._pool = pool
        self._owner = owner
        self.lease: Lease | None = None
        self.begin = self.end = 0

    @property
    def partial(self) -> bool:
        """Whether there is something that is not read yet."""
        return self.lease is not None and self.begin < self.end

    @property
    def unread(self) -> memoryview:
        """What is not read yet. Not to be kept: a buffer of which there are views is of no use to the pool."""
        return _NOTHING if self.lease is None else self.lease.view[self.begin : self.end]

    def room(self, needed: int) -> Lease:
        """The buffer, with room behind `end`: the one at hand, or a larger one as a message of `needed` bytes grows (a
        sender of little is given little, whatever its header announces). Raises Exhausted."""
        lease = self.lease
        if lease is None:
            lease = self.lease = self._pool.lease(CHUNK, self._owner)
            self.begin = self.end = 0
            return lease
        held = self.end - self.begin
        room = len(lease.view) - self.end
        if room and room >= min(needed - held, ROOM_LEAST):
            return lease
        size = min(max(needed, CHUNK), max(2 * held, CHUNK))
        fresh = self._pool.lease(size, self._owner)
        fresh.view[:held] = lease.view[self.begin : self.end]
        lease.release()
        self.lease = fresh
        self.begin, self.end = 0, held
        return fresh

    def settle(self) -> None:
        """Give the buffer back where all of it is read."""
        if self.begin == self.end and self.lease is not None:
            self.lease.release()
            self.lease = None

    def drop(self) -> None:
        """Nobody reads it any more. Idempotent."""
        if self.lease is not None:
            self.lease.release()
            self.lease = None
            self.begin = self.end = 0
