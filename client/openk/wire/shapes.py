"""Shapes: what a connection's frames have in common. Most connections send one or a few frames again and again,
alike but for the msgid and the payloads; comparing such a frame with one it has seen is several times cheaper
than parsing it.

    94 00 <msgid> │ ab "key.encrypt" 91 82 a3 "key" a4 "v/k1" a5 "input" │ c4 10 <16 bytes>
      read by hand │ literal: compared, never copied                      │ hole: header read, payload sliced

A frame matches when its literal segments are equal byte by byte and a bin value stands at every hole, of whatever
length: so it differs from the frame that was learned in its payloads only, and parses to the same thing but for
them. The segments are copies of bytes that the check has found to hold no secret: see Reader.learn.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from openk.wire.messages import Limits
from openk.wire.scan import Scan

SHAPES_MOST: Final = 16
_HOLES_MOST: Final = 64
_LITERALS_MOST: Final = 4096
_U16: Final = Struct(">H").unpack_from
_U32: Final = Struct(">I").unpack_from


class Shape:
    """`first`: the bytes from behind the msgid to the first hole; `rest`: for each hole the literal behind it."""

    __slots__ = ("first", "id", "length", "method", "rest")

    def __init__(self, number: int, method: str, segments: list[bytes]) -> None:
        self.id = number
        self.method = method
        self.first: bytes | memoryview = segments[0]
        self.length = len(segments[0])
        self.rest: tuple[tuple[bytes | memoryview, int], ...] = tuple(
            (segment, len(segment)) for segment in segments[1:]
        )

    def match(self, view: memoryview, at: int) -> tuple[tuple[memoryview, ...], int] | None:
        """Match behind `first`, which the caller has compared. The holes and the offset behind the frame; None
        where it differs. May read behind what has been received (the caller compares the offset with its end);
        raises IndexError or struct.error where the buffer itself ends."""
        holes: list[memoryview] = []
        for literal, length in self.rest:
            tag = view[at]
            if tag == 0xC4:
                start = at + 2
                at = start + view[at + 1]
            elif tag == 0xC5:
                start = at + 3
                at = start + _U16(view, at + 1)[0]
            elif tag == 0xC6:
                start = at + 5
                at = start + _U32(view, at + 1)[0]
            else:
                return None
            holes.append(view[start:at])
            if length:
                if view[at : at + length] != literal:
                    return None
                at += length
        return tuple(holes), at


class Memory:
    """The shapes of one connection: at most SHAPES_MOST, most recently used first. Ids are never used again."""

    __slots__ = ("_last", "_once", "shapes")

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self._last = 0
        self._once: list[bytes] = []  # the last frame without holes, kept until it comes again

    def learn(self, method: str, frame: memoryview, limits: Limits) -> int:
        """`frame`: exactly the part behind the msgid, complete and well formed. The id of its shape; 0 when
        it has more holes or more literal bytes than are worth keeping, or has none and did not come twice in a row: a
        client that asks for one name after another shall not push out what will come again."""
        segments = _segments(frame, limits)
        if len(segments) > _HOLES_MOST + 1 or sum(map(len, segments)) > _LITERALS_MOST:
            return 0
        if len(segments) == 1 and segments != self._once:
            self._once = segments
            return 0
        for known in self.shapes:
            if [known.first, *(literal for literal, _ in known.rest)] == segments:
                return known.id
        self._last += 1
        self.shapes.insert(0, Shape(self._last, method, segments))
        del self.shapes[SHAPES_MOST:]
        return self._last

    def prefer(self, index: int) -> None:
        """The shape at `index` was used: to the front."""
        self.shapes.insert(0, self.shapes.pop(index))


def _segments(frame: memoryview, limits: Limits) -> list[bytes]:
    """The bytes between the bin values of a run of values. Payloads are not touched."""
    segments: list[bytes] = []
    offset = literal = 0
    while offset < len(frame):
        bins: list[tuple[int, int, int]] = []
        scan = Scan(limits, bins)
        scan.step(frame[offset:])
        for tag, _, end in bins:
            segments.append(bytes(frame[literal : offset + tag]))
            literal = offset + end
        offset += scan.needed
    segments.append(bytes(frame[literal:]))
    return segments
