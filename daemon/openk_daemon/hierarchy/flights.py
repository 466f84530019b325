"""Many requests want the same thing that is not there yet: one goes for it, all get it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from openk_hsm.pending import Flow, Pending, drive

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    """At most one flow a key at a time. Bounded by the requests in flight, which the daemon bounds."""

    def __init__(self) -> None:
        self._waiting: dict[K, list[Pending[V]]] = {}

    def join(self, key: K, start: Callable[[], Flow[V]]) -> Pending[V]:
        """The answer of the flow in flight, or of a new one. All who wait see the same value or error."""
        own: Pending[V] = Pending()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(own)
            return own
        waiting = self._waiting[key] = [own]

        def finish(value: V | None, error: Exception | None) -> None:
            del self._waiting[key]
            for pending in waiting:
                if error is not None:
                    pending.fail(error)
                else:
                    pending.resolve(value)  # type: ignore[arg-type]  # no error: the value has type V

        drive(start(), finish)
        return own
