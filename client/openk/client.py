"""The blocking client."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Final, TypeVar

from openk.answers import Value
from openk.errors import Error, Interrupted, Unreachable
from openk.link import Broken, Deadline, Link
from openk.nouns import Calls
from openk.operation import Operation
from openk.pipeline import Pipeline
from openk.pool import Pool
from openk.socket_path import DEFAULT_TIMEOUT, find_socket
from openk.stream import EventStream
from openk.verbs import Runner

R = TypeVar("R")

ATTEMPTS: Final = 3
"""How often a call is sent at most, when connections break."""
PATIENCE: Final = 2.0
"""Seconds in which a daemon that has been there may come back (it restarts in about one)."""
_PAUSE: Final = 0.05


class Client(Calls[Runner]):
    """A daemon on this host. Threads may share it; close it, or use `with`.

        with openk.Client() as client:
            sealed = client.key.encrypt("payments/card", b"4111 1111 1111 1111")

    Connects when first used, and again when the connection broke. A call that broke before its answer is sent
    again if it changes nothing; one that does (create, put, rotate, delete) raises Interrupted, unless no byte of
    it had been sent. Bytes given to a method are sent from where they are; they must not change during the call."""

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        connections: int = 8,
    ) -> None:
        """`socket`: else OPENK_SOCKET, else /run/openk/openkd.sock. `timeout`: seconds for each call, connecting
        included; None: for ever. `connections`: at most so many; calls of more threads wait their turn."""
        self._pool = Pool(find_socket(socket), connections)
        self._timeout = timeout
        super().__init__(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()

    def within(self, timeout: float | None) -> Calls[Runner]:
        """The same methods with another timeout: client.within(2).key.sign(...)"""
        return Calls(_Bounded(self, timeout))

    def follow(self, after: str | None = None) -> EventStream:
        """The daemon's events, as they happen: for event in client.follow(). `after`: the cursor of an earlier
        iterator or answer; all that the daemon keeps when left out."""
        return EventStream(self, after, self._timeout)

    def pipeline(self, *, window: int = 32) -> Pipeline:
        """Many calls at once over one connection: methods of the pipeline return futures.

            with client.pipeline() as many:
                futures = [many.key.sign("code/release", document) for document in documents]
            signatures = [future.result() for future in futures]

        `window`: at most so many are outstanding; the daemon takes 64."""
        return Pipeline(self, self._pool, self._timeout, window)

    def run(self, operation: Operation[R], /) -> R:
        """Run an operation made by hand (openk.operation). Raises Error."""
        return self.run_within(operation, self._timeout)

    def run_within(self, operation: Operation[R], timeout: float | None) -> R:
        """The same with another timeout."""
        deadline = Deadline(timeout)
        for attempt in range(ATTEMPTS):
            try:
                outcome = self._ask(operation, deadline, PATIENCE if attempt else 0)
            except Broken as broken:
                if broken.sent and not operation.repeatable:
                    break
                continue
            if isinstance(outcome, Error):
                raise outcome
            return operation.finish(outcome)
        raise Interrupted("daemon.interrupted")

    def _ask(self, operation: Operation[object], deadline: Deadline, patience: float) -> Value | Error:
        try:
            link = take_patiently(self._pool, deadline, patience)
        except Broken:
            raise Broken(sent=False) from None  # while it said hello: the operation itself was not sent
        try:
            outcome = link.wait(link.send(operation, deadline), deadline)
        except BaseException:
            self._pool.drop(link)
            raise
        self._pool.give(link)
        return outcome


def take_patiently(pool: Pool, deadline: Deadline, patience: float) -> Link:
    """A connection; where there is no daemon, tried again for `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            return pool.take(deadline)
        except Unreachable:
            if time.monotonic() >= until:
                raise
            time.sleep(_PAUSE)


class _Bounded:
    def __init__(self, client: Client, timeout: float | None) -> None:
        self._client = client
        self._timeout = timeout

    def run(self, operation: Operation[R], /) -> R:
        return self._client.run_within(operation, self._timeout)
