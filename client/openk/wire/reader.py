"""Read MessagePack-RPC messages from a buffer, without I/O and without copying a payload.

The caller owns the buffer (locked memory) and the reading; see docs/protocol.md for the messages. A frame is tried
in this order: as a remembered shape, by the general parse, and when that fails by the scan, which tells a frame
that is incomplete (None) or unfit (a ProtocolError that skips it) from a stream that is lost (a fatal one).
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import Final

from openk.wire.messages import (
    MSGID_MOST,
    Limits,
    Notification,
    ProtocolError,
    RawValue,
    Request,
    Response,
    Text,
)
from openk.wire.parse import Parse, Refused, key_extent
from openk.wire.scan import Scan
from openk.wire.shapes import Memory

__all__ = ["Limits", "Notification", "ProtocolError", "RawValue", "Reader", "Request", "Response", "Text", "read_msgid"]

_U16: Final = Struct(">H").unpack_from
_U32: Final = Struct(">I").unpack_from
_REQUEST: Final = 0
_RESPONSE: Final = 1
_NOTIFICATION: Final = 2
_NO_PARAMS: Final[dict[str, RawValue]] = {}


class Reader:
    """The messages of one connection, one after another. After a message or a ProtocolError that is not fatal,
    `position` is the offset behind it. After None, `needed` is a lower bound of the whole message's length in
    bytes, and the next call must begin at the same message (which may have moved within the buffer).

    Whatever the pieces it arrives in, a message is scanned once and parsed at most twice."""

    __slots__ = ("_limits", "_memory", "_scan", "needed", "position")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._memory = Memory()
        self._scan: Scan | None = None
        self.position = 0
        self.needed = 0

    def read(self, view: memoryview, start: int, end: int) -> Request | Notification | Response | None:
        """The message that begins at `start`, of which the bytes up to `end` have been received. None: it is
        not complete. Raises ProtocolError."""
        scan = self._scan
        if scan is None:
            if self._memory.shapes:
                known = self._recall(view, start, end)
                if known is not None:
                    return known
        elif end - start < scan.needed or not self._complete(scan, view[start:end]):
            return None
        frame = view[start : min(end, start + self._limits.message_bytes)]
        try:
            return self._parse(frame, view, start)
        except (IndexError, struct_error):
            if end - start < 2:  # it may be foreign yet: the parse tells, at the second byte, and no scan would
                self.needed = end - start + 1
            elif self._complete(Scan(self._limits), view[start:end]):
                raise AssertionError("the parse and the scan disagree") from None
        except Refused as refused:
            if self._complete(Scan(self._limits), view[start:end]):
                self.position = start + self.needed
                raise _skipped(frame, str(refused)) from None
        return None

    def learn(self, request: Request) -> int:
        """Remember the frame of `request` (one that this reader returned with shape 0, whose buffer is still as
        it was), and return the id of its shape, or 0 where it has none worth keeping.

        Only for a request whose check said `plain_text`: every value but those of the bin family is
        public. For those bytes, and for no others, a copy is kept in ordinary memory."""
        view, body, end = request.frame
        return self._memory.learn(request.method, view[body:end], self._limits)

    @property
    def shapes(self) -> tuple[int, ...]:
        """The ids that are remembered: whoever keeps something per shape may drop the others."""
        return tuple(shape.id for shape in self._memory.shapes)

    def _recall(self, view: memoryview, start: int, end: int) -> Request | None:
        try:
            if view[start] != 0x94 or view[start + 1] != _REQUEST:
                return None
            msgid = view[start + 2]
            if msgid < 0x80:
                at = start + 3
            elif msgid == 0xCD:
                msgid = _U16(view, start + 3)[0]
                at = start + 5
            elif msgid == 0xCE:
                msgid = _U32(view, start + 3)[0]
                at = start + 7
            elif msgid == 0xCC:
                msgid = view[start + 3]
                at = start + 4
            else:
                return None
            for index, shape in enumerate(self._memory.shapes):
                body = at + shape.length
                if view[at:body] != shape.first:
                    continue
                match = shape.match(view, body)
                if match is None or match[1] > end or match[1] - start > self._limits.message_bytes:
                    continue
                if index:
                    self._memory.prefer(index)
                self.position = match[1]
                return Request(msgid, shape.method, _NO_PARAMS, shape.id, match[0], view, at, match[1])
        except (IndexError, struct_error):
            pass
        return None

    def _complete(self, scan: Scan, frame: memoryview) -> bool:
        try:
            complete = scan.step(frame)
        except ProtocolError as error:
            error.msgid = read_msgid(frame)
            raise
        self.needed = scan.needed
        self._scan = None if complete else scan
        return complete

    def _parse(self, frame: memoryview, view: memoryview, start: int) -> Request | Notification | Response:
        head = frame[0]
        if head not in {0x93, 0x94}:
            raise _foreign()
        kind = frame[1]
        if head == 0x94 and kind == _REQUEST:
            return self._request(frame, view, start)
        if head == 0x93 and kind == _NOTIFICATION:
            return self._notification(frame, start)
        if head == 0x94 and kind == _RESPONSE:
            return self._response(frame, start)
        raise _foreign()

    def _response(self, frame: memoryview, start: int) -> Response:
        parse = Parse(self._limits, 4)
        msgid, at = parse.value(frame, 2, 1)
        error, at = parse.value(frame, at, 1)
        result, at = parse.value(frame, at, 1)
        if at > len(frame):
            raise IndexError
        if type(msgid) is not int or not 0 <= msgid <= MSGID_MOST:
            raise Refused("the msgid is not an unsigned 32-bit integer")
        self.position = start + at
        return Response(msgid, error, result)

    def _request(self, frame: memoryview, view: memoryview, start: int) -> Request:
        parse = Parse(self._limits, 5)
        msgid = frame[2]
        body = 3
        if msgid >= 0x80:
            value, body = parse.value(frame, 2, 1)
            if type(value) is not int or not 0 <= value <= MSGID_MOST:
                raise Refused("the msgid is not an unsigned 32-bit integer")
            msgid = value
        begin, at = key_extent(frame, body)
        try:
            method = str(frame[begin:at], "utf-8")
        except UnicodeDecodeError:
            raise Refused("the method is not UTF-8") from None
        params = _NO_PARAMS
        if frame[at] == 0x91 and 0x80 <= frame[at + 1] < 0x90:
            params, at = parse.map(frame, at + 2, frame[at + 1] & 0x0F, 2)
        else:
            parse = Parse(self._limits, 4)
            values, at = parse.value(frame, at, 1)
            if type(values) is not list or len(values) > 1 or (values and type(values[0]) is not dict):
                raise Refused("the parameters must be an array with one map")
            if values and isinstance(values[0], dict):
                params = values[0]
        if at > len(frame):
            raise IndexError
        self.position = start + at
        return Request(msgid, method, params, 0, tuple(parse.bins), view, start + body, start + at)

    def _notification(self, frame: memoryview, start: int) -> Notification:
        """Whatever it carries is skipped unread; even the method may be anything (pynvim's first message has one of
        the bin family), and is "" where it is no text."""
        if not self._complete(Scan(self._limits), frame):
            raise IndexError
        self.position = start + self.needed
        try:
            begin, end = key_extent(frame, 2)
            return Notification(str(frame[begin:end], "utf-8"))
        except (Refused, UnicodeDecodeError):
            return Notification("")


def read_msgid(frame: memoryview) -> int | None:
    """The msgid of a request that is wrong elsewhere, or not complete, for the answer. None where it cannot be told."""
    try:
        if frame[0] != 0x94 or frame[1] != _REQUEST:
            return None
        value, end = Parse(Limits()).value(frame, 2, 1)
    except (IndexError, struct_error, Refused):
        return None
    return value if type(value) is int and 0 <= value <= MSGID_MOST and end <= len(frame) else None


def _foreign() -> ProtocolError:
    return ProtocolError("not a MessagePack-RPC message: it begins with neither 94 00, 94 01 nor 93 02", fatal=True)


def _skipped(frame: memoryview, reason: str) -> ProtocolError:
    """Fatal all the same where nobody could be answered: the peer does not speak this protocol."""
    msgid = read_msgid(frame)
    return ProtocolError(reason, msgid, fatal=msgid is None)
