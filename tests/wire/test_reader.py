"""The reader against msgpack as oracle: whole frames, every truncation, byte by byte, mutations, limits."""

from __future__ import annotations

import time
from contextlib import nullcontext

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openk.wire.reader import Limits, Notification, ProtocolError, Reader, Request, Response, Text
from tests.wire.frames import Plain, bins, buffer, pack, plain, requests, values
from tests.wire.oracle import WIDE, compare_with_oracle

PING = pack([0, 1, "system.ping", [{}]])


def read_one(data: bytes, limits: Limits = WIDE) -> Request | Notification | Response | None:
    return Reader(limits).read(*buffer(data))


def refusal(data: bytes, limits: Limits | None = None) -> tuple[ProtocolError, Reader]:
    reader = Reader(limits or Limits())
    with pytest.raises(ProtocolError) as caught:
        reader.read(*buffer(data, behind=PING))
    return caught.value, reader


@given(requests(), st.binary(max_size=9), st.binary(max_size=9))
def test_reads_what_msgpack_wrote(request_: tuple[int, str, dict[str, Plain]], before: bytes, behind: bytes) -> None:
    msgid, method, params = request_
    data = pack([0, msgid, method, [params]])
    reader = Reader(WIDE)
    found = reader.read(*buffer(data, before, behind))
    assert isinstance(found, Request)
    assert (found.msgid, found.method, plain(found.params), found.shape) == (msgid, method, params, 0)
    assert [bytes(hole) for hole in found.holes] == bins(params)
    assert reader.position == len(before) + len(data)


@given(requests())
def test_payloads_are_slices_of_the_buffer(request_: tuple[int, str, dict[str, Plain]]) -> None:
    msgid, method, params = request_
    view, start, end = buffer(pack([0, msgid, method, [params]]))
    found = Reader(WIDE).read(view, start, end)
    assert isinstance(found, Request)
    assert all(hole.obj is view.obj for hole in found.holes)
    texts = [value for value in found.params.values() if isinstance(value, Text)]
    assert all(text.view.obj is view.obj for text in texts)


@given(values, values, st.integers(0, 0xFFFF_FFFF))
def test_reads_responses(error: Plain, result: Plain, msgid: int) -> None:
    data = pack([1, msgid, error, result])
    reader = Reader(WIDE)
    found = reader.read(*buffer(data, behind=PING))
    assert isinstance(found, Response)
    assert (found.msgid, plain(found.error), plain(found.result)) == (msgid, error, result)
    assert reader.position == len(data)


@given(values, values)
def test_skips_what_a_notification_carries(method: Plain, anything: Plain) -> None:
    data = pack([2, method, anything])
    reader = Reader(WIDE)
    expected = method if isinstance(method, str) else ""
    assert reader.read(*buffer(data, behind=PING)) == Notification(expected)
    assert reader.position == len(data)


@given(requests(), st.data())
def test_every_truncation_is_incomplete_and_needs_no_more_than_there_is(
    request_: tuple[int, str, dict[str, Plain]], data: st.DataObject
) -> None:
    frame = pack([0, request_[0], request_[1], [request_[2]]])
    cut = data.draw(st.integers(0, len(frame) - 1))
    reader = Reader(WIDE)
    # What lies behind what was received is noise of the buffer's last use: it must have no effect.
    view, start, end = buffer(frame[:cut], behind=b"\xc1" * 600)
    assert reader.read(view, start, end) is None
    assert cut < reader.needed <= len(frame)


@settings(max_examples=40)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_byte_by_byte(stream: list[tuple[int, str, dict[str, Plain]]]) -> None:
    frames = [pack([0, msgid, method, [params]]) for msgid, method, params in stream]
    data = b"".join(frames)
    view = memoryview(bytearray(data))
    reader = Reader(WIDE)
    found: list[tuple[int, str, Plain]] = []
    start = 0
    for end in range(len(data) + 1):
        message = reader.read(view, start, end)
        if message is not None:
            assert isinstance(message, Request)
            found.append((message.msgid, message.method, plain(message.params)))
            start = reader.position
    assert found == stream
    assert start == len(data)


@given(requests(), st.data())
@example((0, "", {}), None)
def test_a_mutated_frame_is_taken_as_msgpack_takes_it(
    request_: tuple[int, str, dict[str, Plain]], data: st.DataObject | None
) -> None:
    frame = bytearray(pack([0, request_[0], request_[1], [request_[2]]]))
    if data is not None:
        for _ in range(data.draw(st.integers(1, 3))):
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    compare_with_oracle(bytes(frame))


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x94\x00\x01\xa1m\x91", b"\x94\x00", b"\x94\x01", b"\x93\x02"]))
def test_garbage_is_taken_as_msgpack_takes_it(garbage: bytes, head: bytes) -> None:
    compare_with_oracle(head + garbage)


UNFIT: dict[str, bytes] = {
    "the same key twice": b"\x94\x00\x07\xa1m\x91\x82\xa1a\x01\xa1a\x02",
    "no parameters": pack([0, 7, "m", None]),
    "parameters that are a map": pack([0, 7, "m", {}]),
    "two parameters": pack([0, 7, "m", [{}, {}]]),
    "a parameter that is no map": pack([0, 7, "m", [1]]),
    "a key that is an integer": pack([0, 7, "m", [{1: 2}]]),
    "a key that is bytes": pack([0, 7, "m", [{b"a": 2}]]),
    "a key that is not UTF-8": b"\x94\x00\x07\xa1m\x91\x81\xa1\xff\x01",
    "a key that is a surrogate": b"\x94\x00\x07\xa1m\x91\x81\xa3\xed\xa0\x80\x01",
    "a method that is an integer": pack([0, 7, 1, [{}]]),
    "a method that is bytes": pack([0, 7, b"m", [{}]]),
    "a method that is not UTF-8": b"\x94\x00\x07\xa1\xff\x91\x80",
    "an extension": pack([0, 7, "m", [{"a": msgpack.ExtType(5, b"x")}]]),
    "a timestamp": pack([0, 7, "m", [{"a": msgpack.Timestamp(1, 2)}]]),
    "too deep": pack([0, 7, "m", [{"a": [[[[[[1]]]]]]}]]),
}


@pytest.mark.parametrize("frame", UNFIT.values(), ids=UNFIT.keys())
def test_an_unfit_request_is_skipped_and_the_next_one_read(frame: bytes) -> None:
    error, reader = refusal(frame)
    assert (error.fatal, error.msgid, error.code) == (False, 7, "request.invalid")
    assert reader.position == len(frame)
    found = reader.read(memoryview(frame + PING), reader.position, len(frame + PING))
    assert isinstance(found, Request)
    assert found.method == "system.ping"


@pytest.mark.parametrize("frame", UNFIT.values(), ids=UNFIT.keys())
def test_an_unfit_request_is_not_judged_before_it_is_complete(frame: bytes) -> None:
    reader = Reader(Limits())
    view = memoryview(frame)
    for end in range(len(frame)):
        assert reader.read(view, 0, end) is None
    with pytest.raises(ProtocolError):
        reader.read(view, 0, len(frame))


@pytest.mark.parametrize("head", [b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"])
@pytest.mark.parametrize(("elements", "fits"), [(9, True), (10, False)])
def test_values_are_counted_alike_whole_and_in_pieces(head: bytes, elements: int, fits: bool) -> None:
    """4 of the frame, 1 of the parameters, 2 of their map, and the list's."""
    data = b"\x94\x00\x07\xa1m" + head + b"\x81\xa1a" + pack(list(range(elements)))
    limits = Limits(values=16)
    for begin in (len(data), 0):
        reader, found = Reader(limits), None
        with pytest.raises(ProtocolError, match="more than 16 values") if not fits else nullcontext():
            for end in range(begin, len(data) + 1):
                found = reader.read(memoryview(data), 0, end)
        assert isinstance(found, Request) is fits


def test_a_response_at_the_limit_of_values_is_read() -> None:
    data = pack([1, 7, None, list(range(12))])
    assert isinstance(read_one(data, Limits(values=16)), Response)
    assert refusal(data, Limits(values=15))[0].code == "request.too_large"


def test_a_foreign_stream_is_lost_at_its_second_byte_in_pieces_too() -> None:
    reader = Reader(Limits())
    view = memoryview(b"\x94\xc5\xff\xff")
    assert reader.read(view, 0, 1) is None
    assert reader.needed == 2
    with pytest.raises(ProtocolError, match="not a MessagePack-RPC message") as caught:
        reader.read(view, 0, 2)
    assert caught.value.fatal


LOST: dict[str, tuple[bytes, int | None, str]] = {
    "text": (b"GET / HTTP/1.1\r\n", None, "request.invalid"),
    "a byte that begins nothing": (b"\x94\x00\x07\xa1m\x91\x81\xa1a\xc1", 7, "request.invalid"),
    "an array of two": (pack([0, 1]), None, "request.invalid"),
    "an unknown type": (pack([3, 1, "m", [{}]]), None, "request.invalid"),
    "a msgid beyond 32 bits": (pack([0, 1 << 32, "m", [{}]]), None, "request.invalid"),
    "a negative msgid": (pack([0, -1, "m", [{}]]), None, "request.invalid"),
    "a msgid that is text": (pack([0, "1", "m", [{}]]), None, "request.invalid"),
    "a bin that announces 4 GiB": (b"\x94\x00\x07\xa1m\x91\x81\xa1a\xc6\xff\xff\xff\xff", 7, "request.too_large"),
    "a bin just too long": (b"\x94\x00\x07\xa1m\x91\x81\xa1a\xc6\x00\x10\x00\x00", 7, "request.too_large"),
    "an array of 4 G": (b"\x94\x00\x07\xa1m\xdd\xff\xff\xff\xff", 7, "request.too_large"),
    "a map of 4 G": (b"\x94\x00\x07\xa1m\x91\xdf\xff\xff\xff\xff", 7, "request.too_large"),
    "too many values": (b"\x94\x00\x07\xa1m\xdc\x20\x01", 7, "request.too_large"),
}


@pytest.mark.parametrize(("frame", "msgid", "code"), LOST.values(), ids=LOST.keys())
def test_a_lost_stream_is_fatal_as_soon_as_it_shows(frame: bytes, msgid: int | None, code: str) -> None:
    reader = Reader(Limits())
    with pytest.raises(ProtocolError) as caught:
        reader.read(*buffer(frame))
    assert (caught.value.fatal, caught.value.msgid, caught.value.code) == (True, msgid, code)


def test_a_complete_message_above_the_limit_is_refused_too() -> None:
    frame = pack([0, 7, "m", [{"a": b"x" * 100}]])
    assert isinstance(read_one(frame, Limits(message_bytes=len(frame))), Request)
    error, _ = refusal(frame, Limits(message_bytes=len(frame) - 1))
    assert (error.fatal, error.code, error.msgid) == (True, "request.too_large", 7)


def test_many_values_in_a_complete_message_are_refused() -> None:
    error, _ = refusal(pack([0, 7, "m", [{"a": [0] * 9000}]]))
    assert (error.fatal, error.code) == (True, "request.too_large")


@pytest.mark.parametrize("params", [[], [{}]])
def test_no_parameters_may_be_left_out(params: list[dict[str, int]]) -> None:
    found = read_one(pack([0, 7, "system.ping", params]))
    assert isinstance(found, Request)
    assert found.params == {}


def test_every_width_of_msgid() -> None:
    for header in (b"\x07", b"\xcc\x07", b"\xcd\x00\x07", b"\xce\x00\x00\x00\x07", b"\xcf" + bytes(7) + b"\x07"):
        found = read_one(b"\x94\x00" + header + b"\xa1m\x91\x80")
        assert isinstance(found, Request)
        assert found.msgid == 7


def test_many_small_pieces_cost_no_more_than_twice_the_message_twice_as_long() -> None:
    """Quadratic would be four times: the bound lies between, with room for a busy machine."""

    def cost(items: int) -> float:
        frame = pack([0, 7, "m", [{"a": [1] * items}]])
        view = memoryview(frame)
        reader = Reader(Limits(values=1 << 20))
        begun = time.process_time()
        for end in range(len(frame)):
            assert reader.read(view, 0, end) is None
        return time.process_time() - begun

    assert min(cost(20_000) for _ in range(3)) < 3 * min(cost(10_000) for _ in range(3))


def test_nothing_of_the_payload_is_in_a_refusal_or_repr() -> None:
    error, _ = refusal(b"\x94\x00\x07\xa1m\x91\x82\xa1a\xa6canary\xa1a\xc4\x06canary")
    assert "canary" not in repr(error) + str(error)
    found = read_one(pack([0, 7, "m", [{"a": "canary", "b": b"canary"}]]))
    assert isinstance(found, Request)
    assert "canary" not in repr(found) + repr(found.params) + repr(found.holes)
