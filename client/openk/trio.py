"""The trio client: the same methods as the blocking one, awaited. Needs the extra `openk[trio]`."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, TypeVar

import trio

from openk.answers import Value
from openk.calls.system import hello
from openk.client import ATTEMPTS, PATIENCE
from openk.conversation import Conversation
from openk.errors import Error, Interrupted, TimedOut, Unreachable
from openk.link import Broken, behind, settle, unreachable
from openk.nouns import Calls
from openk.operation import Operation
from openk.socket_path import DEFAULT_TIMEOUT, find_socket
from openk.stream import AsyncEventStream
from openk.verbs import AsyncRunner

__all__ = ["Client"]

R = TypeVar("R")

_PIECES_MOST: Final = 512
_PAUSE: Final = 0.05


class Client(Calls[AsyncRunner]):
    """A daemon on this host: one connection that any number of tasks share.

        async with openk.trio.Client() as client:
            sealed = await client.key.encrypt("payments/card", b"4111 1111 1111 1111")

    Connects when first used, and again when the connection broke; what is sent again and what raises
    Interrupted is as in openk.Client. A cancelled call is forgotten: the daemon may still do it. Leaving the
    block cancels what is outstanding; calls of other tasks then raise Interrupted."""

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, *, timeout: float | None = DEFAULT_TIMEOUT
    ) -> None:
        """`socket`: else OPENK_SOCKET, else /run/openk/openkd.sock. `timeout`: seconds for each call, connecting
        included; None: for ever."""
        self._path = find_socket(socket)
        self._timeout = timeout
        self._opening = trio.Lock()
        self._link: _Link | None = None
        self._nursery: trio.Nursery | None = None
        self._stack = AsyncExitStack()
        super().__init__(self)

    async def __aenter__(self) -> Client:
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            nursery.cancel_scope.cancel()
        await self._stack.aclose()

    def within(self, timeout: float | None) -> Calls[AsyncRunner]:
        """The same methods with another timeout: await client.within(2).key.sign(...)"""
        return Calls(_Bounded(self, timeout))

    def follow(self, after: str | None = None) -> AsyncEventStream:
        """The daemon's events, as they happen: async for event in client.follow(). `after`: the cursor of an earlier
        iterator or answer; all that the daemon keeps when left out."""
        return AsyncEventStream(self, after, self._timeout)

    async def run(self, operation: Operation[R], /) -> R:
        """Run an operation made by hand (openk.operation). Raises Error."""
        return await self.run_within(operation, self._timeout)

    async def run_within(self, operation: Operation[R], timeout: float | None) -> R:  # noqa: ASYNC109 - and scopes
        """The same with another timeout."""
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            return await self._run(operation)
        raise TimedOut("daemon.timeout", f"No answer within {timeout:g} seconds; it may have been done.")

    async def _run(self, operation: Operation[R]) -> R:
        for attempt in range(ATTEMPTS):
            try:
                link = await self._ready(PATIENCE if attempt else 0)
            except Broken:
                continue  # while it said hello: the operation itself was not sent
            try:
                outcome = await link.ask(operation)
            except Broken as broken:
                if broken.sent and not operation.repeatable:
                    break
                continue
            if isinstance(outcome, Error):
                raise outcome
            return operation.finish(outcome)
        raise Interrupted("daemon.interrupted")

    async def _ready(self, patience: float) -> _Link:
        """The connection, made if there is none that works."""
        if self._nursery is None:
            raise Interrupted("daemon.interrupted", "The client is used outside its `async with` block.")
        async with self._opening:
            if self._link is None or self._link.broken:
                self._link = None
                self._link = await self._connect(self._nursery, trio.current_time() + patience)
            return self._link

    async def _connect(self, nursery: trio.Nursery, until: float) -> _Link:
        while True:
            try:
                link = await _Link.open(self._path)
                break
            except Unreachable:
                if trio.current_time() >= until:
                    raise
                await trio.sleep(_PAUSE)
        nursery.start_soon(link.receive)
        try:
            settle(link.conversation, await link.ask(hello()))
        except BaseException:
            link.close()
            raise
        return link


class _Bounded:
    def __init__(self, client: Client, timeout: float | None) -> None:
        self._client = client
        self._timeout = timeout

    async def run(self, operation: Operation[R], /) -> R:
        return await self._client.run_within(operation, self._timeout)


class _Slot:
    """Where one answer is waited for; without an outcome once the connection is gone."""

    __slots__ = ("event", "outcome")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.outcome: tuple[Value | Error] | None = None


class _Link:
    """One connection. `receive` runs as long as it lives."""

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self.conversation = Conversation()
        self.broken = False
        self._socket = socket
        self._sending = trio.Lock()
        self._slots: dict[int, _Slot] = {}

    @classmethod
    async def open(cls, path: str) -> _Link:
        """Connect. Raises Unreachable."""
        socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            await socket.connect(path)
        except (OSError, ValueError) as error:
            socket.close()
            raise unreachable(path, error) from None
        except BaseException:
            socket.close()
            raise
        return cls(socket)

    def close(self) -> None:
        """Close, and wake whoever waits for an answer."""
        if self.broken:
            return
        self.broken = True
        self._socket.close()
        self.conversation.wipe()
        for slot in self._slots.values():
            slot.event.set()

    async def ask(self, operation: Operation[object]) -> Value | Error:
        """The result, or the error, as a value. Raises Broken and Unintelligible."""
        slot = _Slot()
        async with self._sending:
            if self.broken:
                raise Broken(sent=False)
            msgid, pieces = self.conversation.begin(operation)
            self._slots[msgid] = slot
            try:
                await self._send(pieces)
            except BaseException:
                del self._slots[msgid]
                raise
        try:
            await slot.event.wait()
        finally:
            del self._slots[msgid]
        if slot.outcome is not None:
            return slot.outcome[0]
        if self.conversation.nonsense is not None:
            raise self.conversation.nonsense
        raise Broken(sent=True)

    async def receive(self) -> None:
        """Take answers in until the connection ends."""
        try:
            while self.conversation.nonsense is None:
                with self.conversation.space() as space:
                    count = await self._socket.recv_into(space)
                if count == 0:
                    return
                for answered in self.conversation.received(count):
                    slot = self._slots.get(answered.msgid)
                    if slot is not None:
                        slot.outcome = (answered.outcome,)
                        slot.event.set()
        except (OSError, trio.ClosedResourceError):
            return
        finally:
            self.close()

    async def _send(self, pieces: list[bytes | memoryview]) -> None:
        sent = False
        try:
            while pieces:
                count = await self._socket.sendmsg(pieces[:_PIECES_MOST])
                sent = True
                pieces = behind(pieces, count)
        except (OSError, trio.ClosedResourceError):
            self.close()
            raise Broken(sent=sent) from None
        except BaseException:
            self.close()  # cancelled: half a frame may be out, and nothing can follow it
            raise
