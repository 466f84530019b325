"""One connection, blocking: a socket that does not block, and waiting with a deadline."""

from __future__ import annotations

import select
import socket
import time
from typing import Final

from openk.answers import Value
from openk.calls.system import hello
from openk.conversation import Conversation
from openk.errors import Error, TimedOut, Unintelligible, Unreachable
from openk.operation import Operation
from openk.wire.writer import Piece

_PIECES_MOST: Final = 512
"""At most so many in one sendmsg: Linux takes 1,024."""


class Broken(Exception):
    """The connection is gone. `sent`: a part of the request, at least, had been sent."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent
        super().__init__()


class Deadline:
    """A point in time, or none. Waiting longer raises TimedOut."""

    __slots__ = ("_at", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        """`timeout`: seconds from now; None: never."""
        self._timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds, more than 0; None: without end. Raises TimedOut."""
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimedOut("daemon.timeout", f"No answer within {self._timeout:g} seconds; it may have been done.")
        return left


class Link:
    """Of one thread at a time. After any exception but an Error in an answer it is to be closed: what is
    outstanding on it would come as the answer to something else's question."""

    def __init__(self, path: str, deadline: Deadline) -> None:
        """Connect and say hello. Raises Unreachable, TimedOut, Unintelligible, Broken."""
        self._conversation = Conversation()
        self._answers: dict[int, Value | Error] = {}
        self._socket = _connect(path, deadline)
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        try:
            settle(self._conversation, self.wait(self.send(hello(), deadline), deadline))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()
        self._conversation.wipe()

    def quiet(self) -> bool:
        """Whether the other end is there and says nothing, as it should between calls, and has said no nonsense."""
        return self._conversation.nonsense is None and not self._poll.poll(0)

    def send(self, operation: Operation[object], deadline: Deadline) -> int:
        """Send; the msgid. Takes answers in while it waits: a daemon that cannot send would not receive."""
        msgid, pieces = self._conversation.begin(operation)
        sent = False
        while pieces:
            try:
                count = self._socket.sendmsg(pieces[:_PIECES_MOST])
            except BlockingIOError:
                if self._wait(select.POLLIN | select.POLLOUT, deadline) & ~select.POLLOUT:
                    self._receive()
                    self._understood()
                continue
            except OSError:
                raise Broken(sent=sent) from None
            sent = True
            pieces = behind(pieces, count)
        return msgid

    def wait(self, msgid: int, deadline: Deadline) -> Value | Error:
        """The result that came for `msgid`, or the error."""
        while msgid not in self._answers:
            self._understood()
            self._wait(select.POLLIN, deadline)
            self._receive()
        return self._answers.pop(msgid)

    def _understood(self) -> None:
        """Raises Unintelligible where nonsense came: nothing will after it."""
        if self._conversation.nonsense is not None:
            raise self._conversation.nonsense

    def _receive(self) -> None:
        try:
            with self._conversation.space() as space:
                count = self._socket.recv_into(space)
        except BlockingIOError:
            return
        except OSError:
            raise Broken(sent=True) from None
        if count == 0:
            raise Broken(sent=True)
        for answered in self._conversation.received(count):
            self._answers[answered.msgid] = answered.outcome

    def _wait(self, events: int, deadline: Deadline) -> int:
        """Which of `events` (or hang-up) are there."""
        left = deadline.remaining()
        if events != select.POLLIN:
            self._poll.modify(self._socket, events)
        try:
            ready = self._poll.poll(None if left is None else left * 1000 + 1)
        finally:
            if events != select.POLLIN:
                self._poll.modify(self._socket, select.POLLIN)
        if not ready:
            deadline.remaining()
            return 0
        return ready[0][1]


def settle(conversation: Conversation, outcome: Value | Error) -> None:
    """What the answer to hello settles. An error is none here: a policy may refuse hello and allow the rest."""
    if isinstance(outcome, Unintelligible):
        raise outcome
    if not isinstance(outcome, Error):
        most = hello().finish(outcome).limits.get("message_bytes")
        if isinstance(most, int):
            conversation.message_bytes = most


def behind(pieces: list[Piece], count: int) -> list[Piece]:
    """What of `pieces` is still to be sent after `count` bytes."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[index + 1 :]] if count else pieces[index:]
        count -= len(piece)
    return []


def _connect(path: str, deadline: Deadline) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.settimeout(deadline.remaining())
        connecting.connect(path)
    except TimeoutError:
        connecting.close()
        raise TimedOut("daemon.timeout", f"The daemon at {path} accepts no connection.") from None
    except (OSError, ValueError) as error:
        connecting.close()
        raise unreachable(path, error) from None
    return connecting


def unreachable(path: str, error: Exception) -> Unreachable:
    reason = getattr(error, "strerror", None) or str(error)
    return Unreachable("daemon.unreachable", f"No daemon answers at {path}: {reason}.")
