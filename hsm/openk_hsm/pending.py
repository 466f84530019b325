"""An answer that is not there yet, and how a handler waits for it.

Handlers are coroutines, but not trio tasks: a task per request costs more than most requests
(docs/adr/0002-handlers-are-not-tasks.md).  They await only `Pending` values, which lanes and stores
settle on the trio thread.  `drive` steps such a coroutine; `settle` lets a trio task wait for one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Generic, TypeVar

import trio

from openk_hsm.serving import SERVING

T = TypeVar("T")

Flow = Coroutine["Pending[object]", None, T]
"""A coroutine that awaits nothing but `Pending` values."""


class Pending(Generic[T]):
    """One answer, settled exactly once, on the thread that runs trio.

    Whoever creates it settles it, with `resolve` or `fail`; a bound on how long that takes is the
    creator's duty (deadline of a lane, of a commit), so that no waiter waits for ever.
    """

    __slots__ = ("_error", "_settled", "_value", "_waiter")

    def __init__(self) -> None:
        self._settled = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiter: Callable[[], None] | None = None

    @property
    def settled(self) -> bool:
        return self._settled

    def resolve(self, value: T) -> None:
        """Settle with a value and run the waiter at once. Raises RuntimeError when settled before."""
        if self._settled:
            raise RuntimeError("a Pending was settled twice")
        self._settled = True
        self._value = value
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter()

    def fail(self, error: Exception) -> None:
        """Settle with an error, which the waiter will see raised."""
        if self._settled:
            raise RuntimeError("a Pending was settled twice")
        self._error = error
        self._settled = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter()

    def when_settled(self, waiter: Callable[[], None]) -> None:
        """Run `waiter` once settled, at once if that is so already. One waiter only."""
        if self._settled:
            waiter()
        elif self._waiter is not None:
            raise RuntimeError("a Pending has one waiter")
        else:
            self._waiter = waiter

    def result(self) -> T:
        """The value, or the error raised. Raises RuntimeError before it is settled."""
        if not self._settled:
            raise RuntimeError("a Pending was read before it was settled")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # resolved: the value has type T

    def __await__(self) -> Generator[Pending[object], None, T]:
        if not self._settled:
            yield self  # type: ignore[misc]  # the driver needs only when_settled
        if self._settled and self._error is None:
            return self._value  # type: ignore[return-value]  # resolved: the value has type T
        return self.result()


def resolved(value: T) -> Pending[T]:
    """A Pending that holds its value from the start."""
    pending: Pending[T] = Pending()
    pending.resolve(value)
    return pending


def failed(error: Exception) -> Pending[T]:  # pyright: ignore[reportInvalidTypeVarUse]  # T is the waiter's
    """A Pending that raises from the start."""
    pending: Pending[T] = Pending()
    pending.fail(error)
    return pending


class _Drive(Generic[T]):
    """One flow on its way. An object with a bound method, not a closure that names itself: that would be a cycle for
    each request, and the collector a fifth of the hot path."""

    __slots__ = ("_finish", "_request", "_send")

    def __init__(self, flow: Flow[T], finish: Callable[[T | None, Exception | None], None], request: int) -> None:
        self._send = flow.send
        self._finish = finish
        self._request = request

    def step(self) -> None:
        serving = SERVING
        before = serving.request  # what settles a Pending may be another request's flow, in the middle of a step
        serving.request = self._request
        try:
            awaited = self._send(None)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Exception as error:  # noqa: BLE001 - finish is the one place that judges errors
            self._finish(None, error)
        else:
            awaited.when_settled(self.step)
        finally:
            serving.request = before


def drive(flow: Flow[T], finish: Callable[[T | None, Exception | None], None], request: int | None = None) -> None:
    """Step `flow` until it returns or raises, then call `finish` with its value or its error. `request`: the count of
    the request that it is; None: it is for whatever is being served now (openk_hsm.serving)."""
    _Drive(flow, finish, SERVING.request if request is None else request).step()


def begin(flow: Flow[T]) -> Pending[T]:
    """Start `flow` now, beside others; await its value later."""
    outcome: Pending[T] = Pending()

    def finish(value: T | None, error: Exception | None) -> None:
        if error is not None:
            outcome.fail(error)
        else:
            outcome.resolve(value)  # type: ignore[arg-type]  # no error: the value has type T

    drive(flow, finish)
    return outcome


async def settle(flow: Flow[T]) -> T:
    """Run a flow from inside a trio task (start-up, tests) and wait for its value."""
    done = trio.Event()
    outcome = begin(flow)
    outcome.when_settled(done.set)
    await done.wait()
    return outcome.result()
