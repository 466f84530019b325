"""The values that cross the wire: messages, raw values, and what is wrong with a message.

    request       [0, msgid, method, [params]]      params: one map
    response      [1, msgid, error, result]         one of the two is nil
    notification  [2, method, [...]]                ignored; never has an effect

Rules of this file: no I/O, no trio; nothing here copies a payload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

MSGID_MOST: Final = 0xFFFF_FFFF


class Text:
    """A value of the str family, not decoded: `view` is a slice of the receive buffer. It may turn out to be
    a secret (a `bytes` field takes the str family too), so only the check, which knows, decodes it."""

    __slots__ = ("view",)

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and self.view == other.view

    __hash__ = None  # type: ignore[assignment]  # a hash would need the bytes

    def decode(self) -> str:
        """As `str`. Only for what is public. Raises UnicodeDecodeError."""
        return str(self.view, "utf-8")


RawValue: TypeAlias = "bool | int | float | Text | memoryview | list[RawValue] | dict[str, RawValue] | None"
"""A value as it was read. memoryview: the bin family, a slice of the receive buffer."""


class Request:
    """One request. Views in `params` and `holes` are valid as long as the buffer is.

    `shape`: 0 after a general parse; else the id of the remembered shape that the frame matched, and then
    `params` is empty. `holes`: every bin payload of the frame, in order, in both cases."""

    __slots__ = ("_body", "_end", "_view", "holes", "method", "msgid", "params", "shape")

    def __init__(
        self,
        msgid: int,
        method: str,
        params: dict[str, RawValue],
        shape: int,
        holes: tuple[memoryview, ...],
        view: memoryview,
        body: int,
        end: int,
    ) -> None:
        self.msgid = msgid
        self.method = method
        self.params = params
        self.shape = shape
        self.holes = holes
        self._view = view
        self._body = body
        self._end = end

    @property
    def frame(self) -> tuple[memoryview, int, int]:
        """The buffer, and where the part behind the msgid begins and ends in it: what a shape is learned from."""
        return self._view, self._body, self._end


@dataclass(frozen=True, slots=True)
class Notification:
    """Its arguments are skipped unread: openk gives no notification an effect."""

    method: str


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    msgid: int
    error: RawValue
    result: RawValue


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may be. `message_bytes`: the whole frame. `depth`: nested containers, the frame's own
    array counted (a batch request has 5). `values`: elements of all arrays and maps together (a map entry is
    two), which bounds the time and heap that one frame can cost; 256 items of four fields need 2,310."""

    message_bytes: int = 1 << 20
    depth: int = 8
    values: int = 8192


class ProtocolError(Exception):
    """What is wrong with a message. `reason` is a sentence that is safe to send.

    `code` is request.invalid or request.too_large. `msgid` where it could be told, else None.
    `fatal`: the stream cannot be followed (answer, then close); else the frame was skipped whole and reading
    may go on at `Reader.position`."""

    def __init__(
        self, reason: str, msgid: int | None = None, *, fatal: bool = False, code: str = "request.invalid"
    ) -> None:
        self.reason = reason
        self.msgid = msgid
        self.fatal = fatal
        self.code = code
        super().__init__(reason)
