"""Iterators over the daemon's event stream, which is asked for: a cursor on this side, a question as long as nothing
happens. Made by the `follow` of a client."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, TypeVar

from openk.calls.system import events
from openk.operation import Operation
from openk.results import Event, Events

R = TypeVar("R")

WAIT: Final = 20
"""Seconds that the daemon is asked to wait for the next event."""


class Bounded(Protocol):
    """openk.Client."""

    def run_within(self, operation: Operation[R], timeout: float | None, /) -> R: ...


class AsyncBounded(Protocol):
    """openk.trio.Client."""

    async def run_within(self, operation: Operation[R], timeout: float | None, /) -> R: ...  # noqa: ASYNC109 - see there


class _Position:
    """Where a reader is. No I/O."""

    def __init__(self, after: str | None, timeout: float | None) -> None:
        self.cursor: str | None = after
        """To go on with, by this iterator or another."""
        self._timeout = None if timeout is None else timeout + WAIT
        self._ready: deque[Event] = deque()

    def _question(self) -> Operation[Events]:
        return events(self.cursor, wait=WAIT)

    def _take(self, answer: Events) -> None:
        if answer.restarted:
            self._ready.append(_remark("daemon.restarted", "the daemon has started anew: these are its events since"))
        if answer.lost:
            self._ready.append(_remark("events.lost", f"{answer.lost} events are not kept any more"))
        self._ready += answer.events
        self.cursor = answer.cursor


class EventStream(_Position):
    """Each event once, in order, for ever. `next` raises Error when the daemon cannot be asked; called again, it goes
    on where it was. Of one thread at a time."""

    def __init__(self, client: Bounded, after: str | None, timeout: float | None) -> None:
        super().__init__(after, timeout)
        self._client = client

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        while not self._ready:
            self._take(self._client.run_within(self._question(), self._timeout))
        return self._ready.popleft()


class AsyncEventStream(_Position):
    """The same, for `async for`. Of one task at a time; a cancelled wait loses nothing."""

    def __init__(self, client: AsyncBounded, after: str | None, timeout: float | None) -> None:
        super().__init__(after, timeout)
        self._client = client

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            self._take(await self._client.run_within(self._question(), self._timeout))
        return self._ready.popleft()


def _remark(kind: str, text: str) -> Event:
    return Event(0, kind, 0, "info", "", None, text)
