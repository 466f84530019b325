"""Operations that wait for a worker: in order for each client, in turn between clients, bounded for both."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from openk_hsm.errors import Busy
from openk_hsm.seam import Operation


class FairQueue:
    """Round robin between clients. `per_client` and `total` count operations."""

    __slots__ = ("_queues", "_ring", "count", "per_client", "total")

    def __init__(self, per_client: int, total: int) -> None:
        self.per_client = per_client
        self.total = total
        self.count = 0
        self._queues: dict[int, deque[Operation]] = {}
        self._ring: deque[int] = deque()  # clients that have something waiting, whose turn is next first

    def push(self, operation: Operation) -> None:
        """Raises Busy when the client, or all together, have too much waiting."""
        client = operation.client
        queue = self._queues.get(client)
        if queue is None:
            if self.count >= self.total:
                raise Busy("too many operations wait for the HSM", retry_after=0.1)
            self._queues[client] = deque((operation,))
            self._ring.append(client)
        else:
            if self.count >= self.total or len(queue) >= self.per_client:
                raise Busy("too many operations of this client wait for the HSM", retry_after=0.1)
            queue.append(operation)
        self.count += 1

    def pop(self) -> Operation:
        """The next one. Raises IndexError when nothing waits."""
        ring = self._ring
        client = ring[0]
        queue = self._queues[client]
        operation = queue.popleft()
        self.count -= 1
        if queue:
            if len(ring) > 1:
                ring.rotate(-1)
        else:
            ring.popleft()
            del self._queues[client]
        return operation

    def put_back(self, operation: Operation) -> None:
        """What was popped last, to be popped first."""
        client = operation.client
        queue = self._queues.get(client)
        if queue is None:
            self._queues[client] = deque((operation,))
        else:
            queue.appendleft(operation)
            self._ring.remove(client)
        self._ring.appendleft(client)
        self.count += 1

    def expired(self, now: float) -> Iterator[Operation]:
        """Take out what has waited too long. Each client's operations expire in order."""
        for client in list(self._queues):
            queue = self._queues[client]
            while queue and queue[0].expires <= now:
                self.count -= 1
                yield queue.popleft()
            if not queue:
                del self._queues[client]
                self._ring.remove(client)

    def drain(self) -> list[Operation]:
        """Take out everything."""
        everything = [operation for queue in self._queues.values() for operation in queue]
        self._queues.clear()
        self._ring.clear()
        self.count = 0
        return everything
