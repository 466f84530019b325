"""The body of a "secret-version" record: a data key of its own, and segments under it.

     0        1           3             5
     +--------+-----------+-------------+--------------------+-----------+-----------+---
     | format | segments  | length of   | envelope: the data | segment 0 | segment 1 | ...
     | u8 = 1 | u16       | envelope u16| key (MATERIAL)     |           |           |
     +--------+-----------+-------------+--------------------+-----------+-----------+---
     |<--------------------- front ------------------------->|

    segment: +------------+----------+------------+--------+
             | length u32 | nonce 12 | ciphertext | tag 16 |     AES-256-GCM under the data key
             +------------+----------+------------+--------+
             AAD = encode(SEGMENT, "secret-version", record id, record version, index, front)

Segment 0 says what the others are: msgpack [format, created (ms), names], names nil for one bare value, else
the names of the fields, in order. Segment i is value i. All integers big endian. The front in the AAD binds the number
of segments and the data key, the index binds the order: nothing can be moved, dropped or taken from elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from openk_daemon.hierarchy import canonical
from openk_daemon.hierarchy.envelope import NONCE, TAG
from openk_daemon.hierarchy.records import SECRET_VERSION

FORMAT: Final = 1
REVISION: Final = 1
"""Version records are written once."""
_FRONT: Final = struct.Struct(">BHH")
_LENGTH: Final = struct.Struct(">I")
SEGMENTS_MOST: Final = 0xFFFF


class PayloadError(ValueError):
    """Not a payload of this format; the text names the part."""


class Contents(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Segment 0."""

    format: int
    created: int
    names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Segment:
    nonce: memoryview
    sealed: memoryview
    """Ciphertext and tag."""

    def __len__(self) -> int:
        """Bytes of plaintext."""
        return len(self.sealed) - TAG


@dataclass(frozen=True, slots=True)
class Payload:
    front: bytes
    envelope: memoryview
    segments: tuple[Segment, ...]


def front(envelope: bytes, segments: int) -> bytes:
    """`segments` counts segment 0 too. Raises ValueError above 65535."""
    if not 1 <= segments <= SEGMENTS_MOST:
        raise ValueError("too many segments")
    return _FRONT.pack(FORMAT, segments, len(envelope)) + envelope


def segment_aad(record: bytes, index: int, front_: bytes) -> bytes:
    return canonical.encode(canonical.SEGMENT, SECRET_VERSION, record, REVISION, index, front_)


def assemble(front_: bytes, segments: Sequence[tuple[bytes, bytes]]) -> bytes:
    """`segments` are (nonce, ciphertext || tag)."""
    parts = [front_]
    for nonce, sealed in segments:
        parts += (_LENGTH.pack(len(sealed) - TAG), nonce, sealed)
    return b"".join(parts)


def parse(body: bytes) -> Payload:
    """Raises PayloadError. What it returns points into `body`; nothing is authenticated yet."""
    view = memoryview(body)
    if len(view) < _FRONT.size:
        raise PayloadError("front")
    form, count, length = _FRONT.unpack_from(view)
    if form != FORMAT or count == 0:
        raise PayloadError("format")
    end = _FRONT.size + length
    if len(view) < end:
        raise PayloadError("envelope")
    segments = tuple(_segments(view, end))
    if len(segments) != count:
        raise PayloadError("segments")
    return Payload(body[:end], view[_FRONT.size : end], segments)


def _segments(view: memoryview, at: int) -> Iterator[Segment]:
    while at < len(view):
        start = at + _LENGTH.size
        if len(view) < start:
            raise PayloadError("length")
        (length,) = _LENGTH.unpack_from(view, at)
        at = start + NONCE + length + TAG
        if len(view) < at:
            raise PayloadError("segment")
        yield Segment(view[start : start + NONCE], view[start + NONCE : at])


def encode_contents(created: int, names: Sequence[str] | None) -> bytes:
    return msgspec.msgpack.encode(Contents(FORMAT, created, None if names is None else tuple(names)))


def decode_contents(plain: bytes, segments: int) -> Contents:
    """Raises PayloadError."""
    try:
        contents = msgspec.msgpack.decode(plain, type=Contents)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PayloadError("contents") from error
    values = 1 if contents.names is None else len(contents.names)
    if contents.format != FORMAT or segments != values + 1:
        raise PayloadError("contents")
    return contents
