"""Find the end of one MessagePack value without building anything: resumable, so that a message which arrives
byte by byte is walked once, and bounded, so that a header that announces too much ends it at once.

Each value is one byte of tag, perhaps a big-endian length, and perhaps content (the MessagePack specification):

    00-7f fixint   80-8f fixmap   90-9f fixarray  a0-bf fixstr   e0-ff fixint
    c0 nil  c1 never used  c2 c3 bool  c4-c6 bin  c7-c9 ext  ca cb float  cc-d3 int  d4-d8 fixext
    d9-db str  dc dd array  de df map
"""

from __future__ import annotations

from typing import Final

from openk.wire.messages import Limits, ProtocolError

_FIXED: Final[dict[int, int]] = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
"""Tag to bytes of content."""

_SIZED: Final[dict[int, tuple[int, int]]] = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
}  # fmt: skip
"""Tag to bytes of the length field, and bytes of content that the length does not count (ext's type)."""

_CONTAINERS: Final[dict[int, tuple[int, int]]] = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Tag to bytes of the count field, and values per element."""

_BINS: Final = (0xC4, 0xC5, 0xC6)


def number(frame: memoryview, at: int, width: int) -> int:
    """A big-endian unsigned integer of `width` bytes. Raises IndexError where the frame ends before it does."""
    total = 0
    for offset in range(at, at + width):
        total = total << 8 | frame[offset]
    return total


class Scan:
    """A walk over one value that begins at offset 0 of each `frame` it is given: the same bytes each time, and
    more of them. `needed` is a lower bound of the value's whole length, exact once `step` has returned True."""

    __slots__ = ("_bins", "_limits", "_offset", "_open", "_values", "needed")

    def __init__(self, limits: Limits, bins: list[tuple[int, int, int]] | None = None) -> None:
        """`bins`: collects (offset of the tag, of the payload, behind the payload) of each bin value."""
        self._limits = limits
        self._bins = bins
        self._offset = 0
        self._open = 1
        self._values = 0
        self.needed = 1

    def step(self, frame: memoryview) -> bool:
        """Walk on as far as `frame` goes; True when the value is complete.

        Raises ProtocolError (fatal) for a byte that begins no value, and for more bytes or values than allowed."""
        size = len(frame)
        if self.needed > size:
            return False
        while self._open:
            if self._offset >= size:
                return self._stop(self._offset + self._open)
            tag = frame[self._offset]
            end = self._one(frame, tag, self._offset + 1)
            if end < 0:
                return self._stop(self._open - 1 - end)
            if end > size:
                return self._stop(end + self._open - 1)
            self._offset = end
            self._open -= 1
        self.needed = self._offset
        if self.needed > self._limits.message_bytes:
            raise _too_large(self._limits)
        return True

    def _stop(self, needed: int) -> bool:
        self.needed = needed
        if needed > self._limits.message_bytes:
            raise _too_large(self._limits)
        return False

    def _one(self, frame: memoryview, tag: int, at: int) -> int:
        """Where the value ends (a container: where its first element begins). Where its header is not
        all here: where that ends, negated."""
        if tag < 0x80 or tag >= 0xE0:
            return at
        if tag < 0x90:
            return self._enter((tag & 0x0F) * 2, at)
        if tag < 0xA0:
            return self._enter(tag & 0x0F, at)
        if tag < 0xC0:
            return at + (tag & 0x1F)
        fixed = _FIXED.get(tag)
        if fixed is not None:
            return at + fixed
        width, extra = _SIZED.get(tag) or _CONTAINERS.get(tag) or (0, 0)
        if width == 0:
            raise ProtocolError("a byte that begins no MessagePack value", fatal=True)
        if at + width > len(frame):
            return -(at + width)
        length = number(frame, at, width)
        if tag in _CONTAINERS:
            return self._enter(length * extra, at + width)
        if self._bins is not None and tag in _BINS:
            self._bins.append((at - 1, at + width, at + width + length))
        return at + width + extra + length

    def _enter(self, values: int, at: int) -> int:
        self._values += values
        if at + values > self._limits.message_bytes:
            raise _too_large(self._limits)
        if self._values > self._limits.values:
            raise ProtocolError(
                f"more than {self._limits.values} values in one message", fatal=True, code="request.too_large"
            )
        self._open += values
        return at


def _too_large(limits: Limits) -> ProtocolError:
    return ProtocolError(
        f"the message is larger than {limits.message_bytes} bytes", fatal=True, code="request.too_large"
    )
