from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_hsm import errors, frames
from openk_hsm.errors import HsmError
from openk_hsm.frames import BadFrame, Call, Hello, Intent
from openk_hsm.seam import Algorithm, KeySpec, Purpose, TokenInfo
from openk_hsm.specs import MECHANISMS

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
SPECS = st.frozensets(st.sampled_from(sorted(MECHANISMS, key=str)), max_size=8)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.binary(max_size=64), st.text(max_size=64))


@given(
    st.lists(
        st.tuples(
            U32, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), U32, U32, U32, U32, U32, U32, U64
        )
    )
)
def test_requests_are_40_bytes_and_come_back(rows: list[tuple[int, ...]]) -> None:
    packed = b"".join(frames.REQUEST.pack(*row) for row in rows)
    assert len(packed) == 40 * len(rows)
    assert list(frames.REQUEST.iter_unpack(packed)) == rows


@given(
    seq=U32, method=st.text(max_size=20), arguments=st.lists(PLAIN, max_size=5), request=U64, deaths=st.integers(0, 999)
)
def test_calls_come_back(seq: int, method: str, arguments: list[object], request: int, deaths: int) -> None:
    packed = frames.pack_call(Call(seq, method, tuple(arguments), request), 1234, deaths)
    assert frames.HEADER.unpack_from(packed) == (b"C", min(deaths, 255), 0, 1234)
    assert frames.unpack_call(memoryview(packed)) == Call(seq, method, tuple(arguments), request)


@given(size=U64, intent=st.sampled_from(Intent), run=U32)
def test_hellos_come_back(size: int, intent: Intent, run: int) -> None:
    assert frames.unpack_hello(frames.pack_hello(Hello(size, intent, run))) == Hello(size, intent, run)


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HsmError) and "code" in vars(kind)
]
"""Those with a code of their own: others travel as what they are a kind of."""


@given(seq=U32, kind=st.sampled_from(KINDS), text=st.text(max_size=50), retry=st.none() | st.floats(0, 100))
def test_errors_keep_their_kind(seq: int, kind: type[HsmError], text: str, retry: float | None) -> None:
    packed = frames.pack_error(frames.ERROR, seq, kind(text, device="CKR_X", retry_after=retry))
    back, error = frames.unpack_error(memoryview(packed))
    assert (back, type(error), str(error), error.device, error.retry_after) == (seq, kind, text, "CKR_X", retry)


@given(resident=SPECS, wrapped=SPECS, identity=st.binary(min_size=32, max_size=32), label=st.text(max_size=32))
def test_token_descriptions_come_back(
    resident: frozenset[KeySpec], wrapped: frozenset[KeySpec], identity: bytes, label: str
) -> None:
    info = TokenInfo("pkcs11", label, "s", "m", "2.6", identity, resident, wrapped, ("AES_GCM",), b"spki")
    packed = frames.pack_body(frames.READY, frames.info_to_wire(info))
    assert frames.info_from_wire(frames.unpack_body(memoryview(packed))) == info


PARSERS = [
    frames.spec_from_wire,
    frames.info_from_wire,
    frames.generated_from_wire,
    frames.objects_from_wire,
]
NESTED = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@pytest.mark.parametrize("parse", PARSERS)
@given(value=NESTED)
def test_malformed_values_are_named_never_crash(parse: object, value: object) -> None:
    assert callable(parse)
    with suppress(BadFrame):
        parse(value)


@given(st.binary(max_size=80))
def test_malformed_messages_are_named_never_crash(message: bytes) -> None:
    for parse in (frames.unpack_call, frames.unpack_error, frames.unpack_result, frames.unpack_hello):
        with suppress(BadFrame):
            parse(memoryview(message))


def test_a_hello_of_another_version_is_refused() -> None:
    with pytest.raises(BadFrame):
        frames.unpack_hello(frames.HELLO.pack(frames.HELLO_KIND, frames.VERSION, 3, 0, 0))
    other = bytearray(frames.pack_hello(Hello(4096)))
    other[1] = frames.VERSION - 1
    with pytest.raises(BadFrame, match="another version"):
        frames.unpack_hello(bytes(other))


def test_an_unknown_algorithm_is_no_spec() -> None:
    with pytest.raises(BadFrame):
        frames.spec_from_wire(["rot-13", "encrypt"])
    assert frames.spec_from_wire(["p-256", "sign"]) == KeySpec(Algorithm.P256, Purpose.SIGN)


def test_sizes_are_as_drawn() -> None:
    assert (frames.HEADER.size, frames.REQUEST.size, frames.ROW.size, struct.calcsize("=cBHIQ")) == (8, 40, 8, 16)


@pytest.mark.parametrize("value", [[], {}, None, 1, "aes-256-kwp", ["aes-256-gcm"]])
def test_a_description_with_a_strange_data_algorithm_is_malformed(value: object) -> None:
    info = TokenInfo("pkcs11", "l", "s", "m", "2.6", bytes(32), frozenset(), frozenset(), (), b"spki")
    with pytest.raises(BadFrame, match="malformed"):
        frames.info_from_wire(frames.info_to_wire(info) | {"data": value})
