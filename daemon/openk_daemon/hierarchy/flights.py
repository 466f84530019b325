"""Many requests want the same thing that is not there yet: one goes for it, all get it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.pending import Flow, Pending, drive
from openk_hsm.serving import SERVING, request_id

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shared(Exception):
    """Stands in the log between a request's refusal and what lies behind it where it was another request's work that
    failed: the HSM's and the worker's lines name that one."""


class Flights(Generic[K, V]):
    """At most one flow a key at a time. Bounded by the requests in flight, which the daemon bounds."""

    def __init__(self) -> None:
        self._waiting: dict[K, list[Pending[V]]] = {}

    def join(self, key: K, start: Callable[[], Flow[V]]) -> Pending[V]:
        """The answer of the flow in flight, or of a new one. All who wait see the same value or error; those who came
        later hear whose error it is."""
        own: Pending[V] = Pending()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(own)
            return own
        waiting = self._waiting[key] = [own]

        first = SERVING.request

        def finish(value: V | None, error: Exception | None) -> None:
            del self._waiting[key]
            for pending in waiting:
                if error is not None:
                    pending.fail(error if pending is own else _again(error, first, len(waiting)))
                else:
                    pending.resolve(value)  # type: ignore[arg-type]  # no error: the value has type V

        drive(start(), finish)
        return own


def _again(error: Exception, first: int, waited: int) -> Exception:
    """The same error for another request: a refusal of its own, so that each is told of in the log."""
    if isinstance(error, Refusal):
        again: Exception = Refusal(error.code.name, error.message, retry_after=error.retry_after, details=error.details)
    elif isinstance(error, HsmError):
        again = type(error)(str(error), device=error.device, retry_after=error.retry_after)
    else:
        return error
    whose = f"request {request_id(first)}" if first else "the daemon itself"
    again.__cause__ = Shared(f"{whose} asked the HSM, and {waited} waited for it")
    again.__cause__.__cause__ = error
    return again
