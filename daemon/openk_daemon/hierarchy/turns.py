"""Changes of one thing take turns: the second begins when the first is durable, or failed.

Without this, two pipelined `secret.put` of one client would both start from the same version, and one would be told
of a conflict that the client cannot explain. The store's optimistic versions stay the last word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Hashable
from contextlib import contextmanager

from openk_daemon.call import After
from openk_hsm.pending import Pending, resolved


class Turns:
    """First come, first served. Waiting is bounded by the requests in flight and the store's deadline."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Pending[None]]] = {}

    def take(self, thing: Hashable) -> Pending[None]:
        """Settles when it is the caller's turn. Exactly one `give` (or the `After` of `ending`) must follow."""
        queue = self._waiting.get(thing)
        if queue is None:
            self._waiting[thing] = deque()
            return resolved(None)
        pending: Pending[None] = Pending()
        queue.append(pending)
        return pending

    def give(self, thing: Hashable) -> None:
        """The turn is over: the next one's begins at once."""
        queue = self._waiting[thing]
        if queue:
            queue.popleft().resolve(None)
        else:
            del self._waiting[thing]

    @contextmanager
    def kept(self, thing: Hashable) -> Generator[None]:
        """After `take`: gives the turn back where the body raises. Else it goes on, until the `After` of `ending`."""
        try:
            yield
        except BaseException:
            self.give(thing)
            raise

    def ending(self, thing: Hashable) -> After:
        """For `Outcome.after`: gives the turn back, whether the change became durable or not."""
        return After(lambda: self.give(thing), lambda: self.give(thing))

    def __len__(self) -> int:
        return len(self._waiting)
