"""Frames to test with: what msgpack makes of generated requests, and raw values turned back into plain ones."""

from __future__ import annotations

from typing import TypeAlias

import msgpack
from hypothesis import strategies as st

from openk.wire.messages import RawValue, Text

Plain: TypeAlias = "bool | int | float | str | bytes | list[Plain] | dict[str, Plain] | None"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.binary(min_size=250, max_size=300),
    st.text("aé", min_size=250, max_size=300),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=12,
)
params = st.dictionaries(st.text(max_size=300), values, max_size=6)
msgids = st.one_of(st.integers(0, 300), st.integers(0, 0xFFFF_FFFF))
methods = st.sampled_from(["key.encrypt", "system.ping", "m" * 40, "é.ü", ""])


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, str, dict[str, Plain]]:
    return draw(msgids), draw(methods), draw(params)


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def buffer(data: bytes, before: bytes = b"", behind: bytes = b"") -> tuple[memoryview, int, int]:
    """A receive buffer with `data` somewhere in it."""
    return memoryview(bytearray(before + data + behind)), len(before), len(before) + len(data)


def plain(value: RawValue) -> Plain:
    """What msgpack's own unpacker would have given, with unicode_errors="surrogateescape"."""
    if isinstance(value, Text):
        return str(value.view, "utf-8", "surrogateescape")
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {key: plain(element) for key, element in value.items()}
    return value


def bins(value: Plain) -> list[bytes]:
    """Every bin value, in the order of the frame."""
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [found for element in value for found in bins(element)]
    return []
