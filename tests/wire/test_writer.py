"""The writer against msgpack as oracle, and that secrets go nowhere but where they are sent from."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk.wire import packing, writer
from openk.wire.codes import CODES
from tests.wire.frames import Plain, msgids, values


def viewed(value: Plain, draw: st.DataObject) -> object:
    """The same value with some of its bytes as memoryviews, some lists as tuples."""
    if isinstance(value, bytes):
        return memoryview(bytearray(value)) if draw.draw(st.booleans()) else value
    if isinstance(value, list):
        listed = [viewed(element, draw) for element in value]
        return tuple(listed) if draw.draw(st.booleans()) else listed
    if isinstance(value, dict):
        return {key: viewed(element, draw) for key, element in value.items()}
    return value


@given(msgids, values, st.data())
def test_a_response_with_secrets_is_what_msgpack_writes(msgid: int, result: Plain, data: st.DataObject) -> None:
    given_ = viewed(result, data)
    size = writer.measure(msgid, given_)
    out = memoryview(bytearray(size + 3))
    assert writer.pack_into(out, msgid, given_) == size
    assert bytes(out[:size]) == msgpack.packb([1, msgid, None, result])
    assert bytes(out[size:]) == bytes(3)


@given(msgids, st.text(max_size=40), st.dictionaries(st.text(max_size=5), values, max_size=20), st.data())
def test_a_request_in_pieces_is_what_msgpack_writes(
    msgid: int, method: str, params: dict[str, Plain], data: st.DataObject
) -> None:
    given_ = viewed(params, data)
    assert isinstance(given_, dict)
    pieces = writer.lay_out_request(msgid, method, given_)
    expected = msgpack.packb([0, msgid, method, [params]])
    assert b"".join(pieces) == expected == writer.pack_request(msgid, method, params)
    assert writer.total(pieces) == len(expected)


@given(msgids, values, values)
def test_a_response_without_secrets(msgid: int, error: Plain, result: Plain) -> None:
    assert writer.pack_response(msgid, error, result) == msgpack.packb([1, msgid, error, result])


@pytest.mark.parametrize("count", [15, 16, 65535, 65536])
def test_every_width_of_header(count: int) -> None:
    secret = memoryview(bytearray(1))
    for result, oracle in (
        ([secret] * count, [b"\0"] * count),
        ({str(number): secret for number in range(count)}, {str(number): b"\0" for number in range(count)}),
        (memoryview(bytearray(count)), bytes(count)),
    ):
        out = memoryview(bytearray(writer.measure(1, result)))
        writer.pack_into(out, 1, result)
        assert out == msgpack.packb([1, 1, None, oracle])


@pytest.mark.parametrize("size", [0, 255, 256, 65535, 65536])
def test_bin_headers(size: int) -> None:
    assert writer.bin_header(size) + bytes(size) == msgpack.packb(bytes(size))


def test_a_view_that_is_too_small_is_refused() -> None:
    result = {"plaintext": memoryview(bytearray(100))}
    with pytest.raises(ValueError, match="structures"):
        writer.pack_into(memoryview(bytearray(50)), 1, result)


def test_pieces_of_secrets_are_the_views_themselves() -> None:
    secret = memoryview(bytearray(b"canary"))
    pieces = writer.lay_out_response(1, {"plaintext": secret, "fields": {"a": secret}, "list": [secret]})
    assert sum(piece is secret for piece in pieces) == 3
    assert not any(b"canary" in piece for piece in pieces if isinstance(piece, bytes))


def test_no_secret_goes_through_msgpack(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[object] = []

    def spy(value: object) -> bytes:
        packed.append(value)
        return packing.pack(value)

    monkeypatch.setattr(writer, "_pack", spy)
    secret = memoryview(bytearray(b"canary"))
    writer.lay_out_response(1, {"plaintext": secret, "results": [{"plaintext": secret, "version": 1}, (secret,)]})
    assert packed
    assert not any(isinstance(value, memoryview | dict | list | tuple) for value in packed)


def test_error_forms() -> None:
    code = CODES["hsm.busy"]
    assert writer.describe_error(code, "later", form="pair", retry_after=2.0) == [code.number, "hsm.busy: later"]
    assert writer.describe_error(code, "later", form="map") == {
        "code": "hsm.busy",
        "number": code.number,
        "message": "later",
    }
    assert writer.describe_error(
        code, "later", form="map", request="r1", retry_after=0.5, details={"lanes": ["a"]}
    ) == {
        "code": "hsm.busy",
        "number": code.number,
        "message": "later",
        "request": "r1",
        "retry_after": 0.5,
        "details": {"lanes": ["a"]},
    }
