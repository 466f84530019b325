"""Remembered shapes give exactly what the general parse gives, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk.wire.reader import Limits, Reader, Request
from tests.wire.frames import Plain, bins, buffer, msgids, pack, plain, requests

WIDE = Limits(depth=40)
payloads = st.one_of(
    st.binary(max_size=8), st.integers(0, 3).map(lambda width: bytes(254 + width)), st.just(bytes(65536))
)


def frame(msgid: int, params: dict[str, Plain], method: str = "key.encrypt") -> bytes:
    return pack([0, msgid, method, [params]])


def learned(data: bytes, limits: Limits = WIDE) -> tuple[Reader, int]:
    reader = Reader(limits)
    found = reader.read(*buffer(data))
    assert isinstance(found, Request)
    return reader, reader.learn(found)


def read(reader: Reader, data: bytes, behind: bytes = b"") -> Request:
    found = reader.read(*buffer(data, b"before", behind))
    assert isinstance(found, Request)
    assert reader.position == len(b"before") + len(data)
    return found


def refill(value: Plain, fresh: st.SearchStrategy[bytes], draw: st.DataObject) -> Plain:
    """The same value with other payloads."""
    if isinstance(value, bytes):
        return draw.draw(fresh)
    if isinstance(value, list):
        return [refill(element, fresh, draw) for element in value]
    if isinstance(value, dict):
        return {key: refill(element, fresh, draw) for key, element in value.items()}
    return value


@given(requests(), msgids, st.data())
def test_a_frame_that_differs_in_payloads_matches_and_gives_the_same(
    request_: tuple[int, str, dict[str, Plain]], msgid: int, data: st.DataObject
) -> None:
    first, method, params = request_
    reader, shape = learned(frame(first, params, method))
    assert (shape > 0) == (0 < len(bins(params)) <= 64)
    other = {name: refill(value, payloads, data) for name, value in params.items()}
    found = read(reader, frame(msgid, other, method), data.draw(st.binary(max_size=8)))
    assert (found.msgid, found.method, found.shape) == (msgid, method, shape)
    assert [bytes(hole) for hole in found.holes] == bins(other)
    if shape == 0:
        assert plain(found.params) == other


@given(requests(), st.data())
def test_any_other_frame_is_read_as_by_a_reader_without_memory(
    request_: tuple[int, str, dict[str, Plain]], data: st.DataObject
) -> None:
    """Mutate the learned frame anywhere behind the msgid: a match may only be one in truth."""
    original = frame(1, request_[2], request_[1])
    reader, _ = learned(original)
    mutated = bytearray(original)
    mutated[data.draw(st.integers(3, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    fresh = Reader(WIDE)

    def outcome(one: Reader) -> tuple[object, ...]:
        try:
            found = one.read(*buffer(bytes(mutated)))
        except Exception as error:  # noqa: BLE001 - compared with what the other reader raises
            return type(error), str(error)
        if not isinstance(found, Request):
            return type(found), one.needed
        return found.msgid, found.method, [bytes(hole) for hole in found.holes], one.position

    assert outcome(reader) == outcome(fresh)


def test_a_match_has_no_params_and_slices_the_buffer() -> None:
    reader, shape = learned(frame(1, {"key": "v/k", "input": b"abc", "aad": b""}))
    view, start, end = buffer(frame(70000, {"key": "v/k", "input": b"longer", "aad": b"more"}))
    found = reader.read(view, start, end)
    assert isinstance(found, Request)
    assert (found.shape, found.params) == (shape, {})
    assert all(hole.obj is view.obj for hole in found.holes)


@pytest.mark.parametrize("cut", range(60))
def test_a_cut_off_frame_does_not_match_what_the_buffer_held_before(cut: int) -> None:
    data = frame(1, {"key": "v/k", "input": b"x" * 40})
    reader, _ = learned(data)
    view = memoryview(bytearray(data))
    assert reader.read(view, 0, cut) is None


def test_another_public_value_does_not_match() -> None:
    reader, shape = learned(frame(1, {"key": "v/k1", "input": b"x"}))
    found = read(reader, frame(1, {"key": "v/k2", "input": b"x"}))
    assert found.shape == 0
    assert reader.learn(found) != shape
    assert read(reader, frame(1, {"key": "v/k1", "input": b"x"})).shape == shape


def test_a_str_in_a_hole_does_not_match() -> None:
    reader, _ = learned(frame(1, {"key": "v/k", "input": b"abc"}))
    assert read(reader, frame(1, {"key": "v/k", "input": "abc"})).shape == 0


def test_what_has_no_holes_is_remembered_when_it_comes_again() -> None:
    data = frame(1, {"secret": "v/s"}, "secret.get")
    reader, shape = learned(data)
    assert shape == 0
    shape = reader.learn(read(reader, data))
    assert shape != 0
    found = read(reader, frame(700, {"secret": "v/s"}, "secret.get"), behind=data)
    assert (found.shape, found.holes, found.msgid, found.method) == (shape, (), 700, "secret.get")
    assert read(reader, frame(1, {"secret": "v/t"}, "secret.get")).shape == 0
    whole = frame(2, {"secret": "v/s"}, "secret.get")
    assert reader.read(memoryview(bytearray(whole)), 0, len(whole) - 1) is None  # the last byte has not come yet


def test_names_that_change_push_nothing_out() -> None:
    reader, kept = learned(frame(1, {"key": "v/k", "input": b"abc"}))
    for index in range(40):
        assert reader.learn(read(reader, frame(1, {"secret": f"v/{index}"}, "secret.get"))) == 0
    assert reader.shapes == (kept,)


def test_too_many_holes_or_literals_are_not_remembered() -> None:
    assert learned(frame(1, {"items": [{"input": b""}] * 64}))[1] == 1
    assert learned(frame(1, {"items": [{"input": b""}] * 65}))[1] == 0
    assert learned(frame(1, {"key": "k" * 5000, "input": b""}))[1] == 0


def test_the_least_recently_used_of_seventeen_is_forgotten_and_its_id_not_used_again() -> None:
    reader = Reader(WIDE)
    ids = [reader.learn(read(reader, frame(1, {"key": f"v/{index}", "input": b""}))) for index in range(16)]
    assert len(set(ids)) == 16
    assert read(reader, frame(1, {"key": "v/0", "input": b""})).shape == ids[0]  # used: to the front
    last = reader.learn(read(reader, frame(1, {"key": "v/16", "input": b""})))
    assert last not in ids
    assert set(reader.shapes) == {last, *ids} - {ids[1]}
    assert read(reader, frame(1, {"key": "v/1", "input": b""})).shape == 0


def test_learning_twice_is_one_shape() -> None:
    reader = Reader(WIDE)
    data = frame(1, {"key": "v/k", "input": b"abc"})
    both = [read(reader, data), read(reader, data)]
    assert reader.learn(both[0]) == reader.learn(both[1])
    assert len(reader.shapes) == 1


def test_a_match_above_the_limit_of_the_message_is_refused_like_any_other() -> None:
    data = frame(1, {"key": "v/k", "input": b""})
    reader, _ = learned(data, Limits(message_bytes=100))
    with pytest.raises(Exception, match="larger than 100 bytes"):
        reader.read(*buffer(frame(1, {"key": "v/k", "input": bytes(100)})))


def test_no_payload_is_kept() -> None:
    reader, _ = learned(frame(1, {"key": "v/k", "input": b"canary", "aad": b"canary"}))
    memory = reader._memory
    kept = [shape.first for shape in memory.shapes] + [part for shape in memory.shapes for part, _ in shape.rest]
    assert kept
    assert not any(b"canary" in bytes(part) for part in kept)
