"""Many calls at once over one connection of the blocking client."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Protocol, TypeVar

from openk.errors import Error, Interrupted
from openk.future import Future
from openk.link import Broken, Deadline, Link
from openk.nouns import Calls
from openk.operation import Operation
from openk.pool import Pool
from openk.verbs import LateRunner

R = TypeVar("R")


class Again(Protocol):
    def run(self, operation: Operation[R], /) -> R:
        """On another connection."""
        ...


class Pipeline(Calls[LateRunner]):
    """Of one thread. Its methods send and return a Future at once, but wait while `window` are outstanding; the
    end of the `with` block waits for all. Results come from `Future.result`, and errors too. Bytes given to a
    method must not change until its result is there. When the connection breaks, what was not answered
    is sent again one by one, or is Interrupted where that might do it twice."""

    def __init__(self, client: Again, pool: Pool, timeout: float | None, window: int) -> None:
        self._client = client
        self._pool = pool
        self._timeout = timeout
        self._window = window
        self._link: Link | None = None
        # Any: futures of different results, each of which knows its own.
        self._open: deque[tuple[int, Deadline, Future[Any]]] = deque()
        super().__init__(self)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                while self._open:
                    self._settle_first()
        finally:
            link, self._link = self._link, None
            if link is not None:
                if self._open:
                    self._pool.drop(link)
                else:
                    self._pool.give(link)
            self._fail(Interrupted("daemon.interrupted", "The pipeline was left before the answer."))

    def run(self, operation: Operation[R], /) -> Future[R]:
        """Send an operation."""
        future = Future(operation, self)
        deadline = Deadline(self._timeout)
        while len(self._open) >= self._window:
            self._settle_first()
        try:
            if self._link is None:
                self._link = self._pool.take(deadline)
            self._open.append((self._link.send(operation, deadline), deadline, future))
        except Broken as broken:
            self._recover()
            self._again(future, sent=broken.sent)
        except Error:
            self._give_up()
            raise
        return future

    def wait_for(self, future: Future[R], /) -> None:
        """Settle futures, in the order they were made, up to this one."""
        while not future.done:
            if not self._open:
                raise Interrupted("daemon.interrupted", "The pipeline was left before the answer.")
            self._settle_first()

    def _settle_first(self) -> None:
        msgid, deadline, future = self._open[0]
        link = self._link
        if link is None:
            raise AssertionError("something is outstanding on no connection")
        try:
            outcome = link.wait(msgid, deadline)
        except Broken:
            self._recover()
            return
        except BaseException:
            self._give_up()
            raise
        self._open.popleft()
        future.settle(outcome)

    def _recover(self) -> None:
        """The connection broke: each unanswered operation again, on connections of the client's."""
        self._close()
        while self._open:
            self._again(self._open.popleft()[2], sent=True)

    def _again(self, future: Future[R], *, sent: bool) -> None:
        if sent and not future.operation.repeatable:
            future.resolve(Interrupted("daemon.interrupted"))
            return
        try:
            future.resolve(self._client.run(future.operation))
        except Error as error:
            future.resolve(error)

    def _give_up(self) -> None:
        """A timeout, nonsense, or an interrupt: the connection can be of no more use."""
        self._close()
        self._fail(Interrupted("daemon.interrupted"))

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._pool.drop(link)

    def _fail(self, error: Error) -> None:
        while self._open:
            self._open.popleft()[2].resolve(error)
