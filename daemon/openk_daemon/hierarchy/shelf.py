"""A dict that forgets what was not used for longest, and says so."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def _ignore(_value: object) -> None:
    return None


class Shelf(Generic[K, V]):
    """At most `room` entries. `leave` is called with each value that is dropped, replaced or cleared."""

    def __init__(self, room: int, leave: Callable[[V], None] = _ignore) -> None:
        if room < 1:
            raise ValueError("a shelf has room for one at least")
        self._room = room
        self._leave = leave
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        old = self._entries.pop(key, None)
        self._entries[key] = value
        if old is not None and old is not value:
            self._leave(old)
        while len(self._entries) > self._room:
            self._leave(self._entries.popitem(last=False)[1])

    def drop(self, key: K) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._leave(value)

    def clear(self) -> None:
        while self._entries:
            self._leave(self._entries.popitem()[1])

    def values(self) -> Iterator[V]:
        """In no order that means anything. The shelf must not change meanwhile."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
