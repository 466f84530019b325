"""The result of an operation in a pipeline, once it is there."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from openk.answers import Value
from openk.errors import Error
from openk.operation import Operation

R = TypeVar("R")


class Waits(Protocol):
    def wait_for(self, future: Future[R], /) -> None:
        """Return when `future.done`."""
        ...


class Future(Generic[R]):
    """Of one thread, as its pipeline is."""

    def __init__(self, operation: Operation[R], pipeline: Waits) -> None:
        self.operation = operation
        self._pipeline = pipeline
        self._outcome: R | Error | None = None
        self.done = False

    def result(self) -> R:
        """The result, waiting for it if need be. Raises Error."""
        if not self.done:
            self._pipeline.wait_for(self)
        if isinstance(self._outcome, Error):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]  # settled: an R, which may be None

    def settle(self, outcome: Value | Error) -> None:
        """For the pipeline: what came from the wire."""
        try:
            self._outcome = outcome if isinstance(outcome, Error) else self.operation.finish(outcome)
        except Error as error:
            self._outcome = error
        self.done = True

    def resolve(self, outcome: R | Error) -> None:
        """For the pipeline: what came in another way."""
        self._outcome = outcome
        self.done = True
