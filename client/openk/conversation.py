"""The client's side of one connection without I/O: operations in, frames out; bytes in, answers out.

The receive buffer is ordinary memory (whoever has the answer has it in ordinary memory too), but nothing in it
outlives its turn: what has been read is overwritten before `received` returns, and so is a buffer outgrown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openk.answers import Value, decode_error, decode_result
from openk.errors import Error, RequestFault, Unintelligible, read_error
from openk.operation import Operation
from openk.wire.messages import MSGID_MOST, Limits, ProtocolError, Response
from openk.wire.reader import Reader
from openk.wire.writer import Piece, lay_out_request, total

ANSWER_LIMITS: Final = Limits(message_bytes=64 << 20, depth=32, values=1 << 20)
"""What one answer may be: the daemon's own limits are lower."""
_ROOM: Final = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What came for `msgid`: a result, or an error (as a value)."""

    msgid: int
    outcome: Value | Error


class Conversation:
    """Msgids, the receive buffer, and which method each msgid waits for. `message_bytes`: what the daemon takes,
    from its answer to hello."""

    def __init__(self) -> None:
        self.message_bytes = 16 << 20
        self.nonsense: Unintelligible | None = None
        """Something came that is not this protocol: what is outstanding will not be answered."""
        self._reader = Reader(ANSWER_LIMITS)
        self._waiting: dict[int, str] = {}
        self._last = 0
        self._buffer = bytearray(_ROOM)
        self._begin = 0
        self._end = 0

    @property
    def outstanding(self) -> int:
        """How many operations wait for their answer."""
        return len(self._waiting)

    def begin(self, operation: Operation[object]) -> tuple[int, list[Piece]]:
        """The msgid, and the frame as pieces to be sent in order. Raises RequestFault (request.too_large) for a
        message that the daemon would close the connection for."""
        msgid = self._last + 1 & MSGID_MOST
        while msgid in self._waiting:
            msgid = msgid + 1 & MSGID_MOST
        pieces = lay_out_request(msgid, operation.method, operation.params)
        if total(pieces) > self.message_bytes:
            raise RequestFault("request.too_large", f"The message has more than {self.message_bytes} bytes.")
        self._last = msgid
        self._waiting[msgid] = operation.method
        return msgid, pieces

    def space(self) -> memoryview:
        """Where to receive into; never empty. Released before the next call."""
        held = self._end - self._begin
        wanted = max(self._reader.needed, held + 1) if held else 1
        if self._begin + wanted > len(self._buffer) or self._end == len(self._buffer):
            self._move(wanted)
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> list[Answered]:
        """Take `count` bytes that have been received into `space`: the answers that are complete with them. Of what
        is not this protocol says `nonsense`, so that the good answers before it are not lost with it."""
        self._end += count
        found: list[Answered] = []
        with memoryview(self._buffer) as view:
            while self._begin < self._end and self.nonsense is None:
                try:
                    message = self._reader.read(view, self._begin, self._end)
                except ProtocolError as error:
                    self.nonsense = Unintelligible("daemon.unintelligible", f"Not an answer: {error.reason}.")
                    break
                if message is None:
                    break
                if isinstance(message, Response):
                    answered = self._answered(message)
                    if answered is not None:
                        found.append(answered)
                view[self._begin : self._reader.position] = bytes(self._reader.position - self._begin)
                self._begin = self._reader.position
        if self.nonsense is not None:
            self.wipe()
        elif self._begin == self._end:
            self._begin = self._end = 0
        return found

    def wipe(self) -> None:
        """Overwrite what was received and not read, when the connection is given up."""
        self._buffer[:] = bytes(len(self._buffer))
        self._begin = self._end = 0

    def _answered(self, message: Response) -> Answered | None:
        method = self._waiting.pop(message.msgid, None)
        if method is None:
            return None
        if message.error is None:
            return Answered(message.msgid, decode_result(method, message.result))
        return Answered(message.msgid, read_error(decode_error(message.error)))

    def _move(self, wanted: int) -> None:
        """What is not yet read to the front of a buffer that holds `wanted` bytes, wiping where it was."""
        held = self._end - self._begin
        size = max(len(self._buffer), 1 << (wanted - 1).bit_length())
        fresh = bytearray(size)
        fresh[:held] = memoryview(self._buffer)[self._begin : self._end]
        self._buffer[:] = bytes(len(self._buffer))
        self._buffer = fresh
        self._begin, self._end = 0, held
