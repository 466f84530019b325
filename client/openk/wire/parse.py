"""The general parse of one MessagePack value: str as Text, bin as a slice of the frame, maps with str keys only.

Rules of this file: `frame` holds the message from offset 0 and perhaps more behind it; a frame that is too short
shows as IndexError or struct.error, or as an end behind len(frame). Anything else that is wrong raises Refused;
whoever catches that looks first whether the frame is complete, for a cut-off frame can look wrong in many ways.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from openk.wire.messages import Limits, RawValue, Text

_NUMBERS: Final[dict[int, tuple[Struct, int]]] = {
    tag: (layout, layout.size)
    for tag, layout in {
        0xCA: Struct(">f"), 0xCB: Struct(">d"),
        0xCC: Struct(">B"), 0xCD: Struct(">H"), 0xCE: Struct(">I"), 0xCF: Struct(">Q"),
        0xD0: Struct(">b"), 0xD1: Struct(">h"), 0xD2: Struct(">i"), 0xD3: Struct(">q"),
    }.items()
}  # fmt: skip
_U16: Final = Struct(">H").unpack_from
_U32: Final = Struct(">I").unpack_from


class Refused(Exception):
    """The value cannot be part of a message; the argument says why."""


class Parse:
    """One parse. `bins`: every bin payload met, in order."""

    __slots__ = ("_depth", "_room", "bins")

    def __init__(self, limits: Limits, outside: int = 0) -> None:
        """`outside`: values of the frame around what is parsed, which count, too."""
        self._depth = limits.depth
        self._room = limits.values - outside
        self.bins: list[memoryview] = []

    def value(self, frame: memoryview, at: int, depth: int) -> tuple[RawValue, int]:
        """The value at `at`, inside `depth` containers, and the offset behind it."""
        tag = frame[at]
        if tag < 0x80:
            return tag, at + 1
        if tag >= 0xE0:
            return tag - 256, at + 1
        if 0xA0 <= tag < 0xC0:
            end = at + 1 + (tag & 0x1F)
            return Text(frame[at + 1 : end]), end
        if tag < 0x90:
            return self.map(frame, at + 1, tag & 0x0F, depth)
        if tag < 0xA0:
            return self.array(frame, at + 1, tag & 0x0F, depth)
        layout = _NUMBERS.get(tag)
        if layout is not None:
            found: int | float = layout[0].unpack_from(frame, at + 1)[0]
            return found, at + 1 + layout[1]
        return self._rare(frame, tag, at + 1, depth)

    def _rare(self, frame: memoryview, tag: int, at: int, depth: int) -> tuple[RawValue, int]:
        if tag in (0xC4, 0xC5, 0xC6):
            start, end = extent(frame, tag - 0xC4, at)
            view = frame[start:end]
            self.bins.append(view)
            return view, end
        if tag in (0xD9, 0xDA, 0xDB):
            start, end = extent(frame, tag - 0xD9, at)
            return Text(frame[start:end]), end
        if tag in (0xDC, 0xDD):
            start, end = extent(frame, tag - 0xDB, at)
            return self.array(frame, start, end - start, depth)
        if tag in (0xDE, 0xDF):
            start, end = extent(frame, tag - 0xDD, at)
            return self.map(frame, start, end - start, depth)
        if tag in (0xC2, 0xC3):
            return tag == 0xC3, at
        if tag == 0xC0:
            return None, at
        raise Refused("extension types are not used here")

    def array(self, frame: memoryview, at: int, count: int, depth: int) -> tuple[list[RawValue], int]:
        self._enter(count, depth)
        found: list[RawValue] = []
        for _ in range(count):
            value, at = self.value(frame, at, depth + 1)
            found.append(value)
        return found, at

    def map(self, frame: memoryview, at: int, count: int, depth: int) -> tuple[dict[str, RawValue], int]:
        """The body of a map of `count` entries. The commonest keys and values are read in line: this loop is
        most of what a request costs."""
        self._enter(count * 2, depth)
        found: dict[str, RawValue] = {}
        value: RawValue
        for _ in range(count):
            tag = frame[at]
            if 0xA0 <= tag < 0xC0:
                end = at + tag - 0x9F
                start = at + 1
            else:
                start, end = key_extent(frame, at)
            try:
                key = str(frame[start:end], "utf-8")
            except UnicodeDecodeError:
                raise Refused("a key is not UTF-8") from None
            tag = frame[end]
            if tag == 0xC4:
                at = end + 2 + frame[end + 1]
                value = frame[end + 2 : at]
                self.bins.append(value)
            elif 0xA0 <= tag < 0xC0:
                at = end + tag - 0x9F
                value = Text(frame[end + 1 : at])
            else:
                value, at = self.value(frame, end, depth + 1)
            found[key] = value
        if len(found) != count:
            raise Refused("a map has the same key twice")
        return found, at

    def _enter(self, values: int, depth: int) -> None:
        if depth >= self._depth:
            raise Refused(f"values are nested deeper than {self._depth}")
        self._room -= values
        if self._room < 0:
            raise Refused("too many values in one message")


def extent(frame: memoryview, width: int, at: int) -> tuple[int, int]:
    """Begin and end of content whose length field (1 << `width` bytes) is at `at`."""
    if width == 0:
        return at + 1, at + 1 + frame[at]
    if width == 1:
        return at + 2, at + 2 + _U16(frame, at)[0]
    return at + 4, at + 4 + _U32(frame, at)[0]


def key_extent(frame: memoryview, at: int) -> tuple[int, int]:
    """Begin and end of the str whose tag is at `at`. Raises Refused for any other value."""
    tag = frame[at]
    if 0xA0 <= tag < 0xC0:
        return at + 1, at + 1 + (tag & 0x1F)
    if tag in (0xD9, 0xDA, 0xDB):
        return extent(frame, tag - 0xD9, at + 1)
    raise Refused("a key or method name that is not a string")
