"""The client's side of a connection without I/O."""

from __future__ import annotations

from itertools import pairwise

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk.answers import decode_result
from openk.calls import keys, system
from openk.conversation import Answered, Conversation
from openk.errors import KeyFault, RequestFault, Unintelligible
from openk.link import behind
from openk.operation import operate_untyped
from openk.secret import Secret


def feed(conversation: Conversation, data: bytes) -> list[Answered]:
    """As much at a time as there is space for."""
    found: list[Answered] = []
    while data:
        with conversation.space() as space:
            count = min(len(space), len(data))
            space[:count] = data[:count]
        data = data[count:]
        found += conversation.received(count)
    return found


def reply(msgid: int, result: object, error: object = None) -> bytes:
    packed: bytes = msgpack.packb([1, msgid, error, result])
    return packed


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 10, 70_000, 300_000]), min_size=1, max_size=4), st.data())
def test_answers_in_any_order_and_any_pieces(sizes: list[int], data: st.DataObject) -> None:
    conversation = Conversation()
    expected: dict[int, bytes] = {}
    for number, size in enumerate(sizes):
        msgid, _ = conversation.begin(keys.decrypt("v/k", b""))
        expected[msgid] = bytes([number]) * size
    order = data.draw(st.permutations(sorted(expected)))
    stream = b"".join(reply(msgid, {"plaintext": expected[msgid], "version": 1}) for msgid in order)
    cuts = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=5))})
    found: list[Answered] = []
    for begin, end in pairwise(cuts):
        found += feed(conversation, stream[begin:end])
    assert [one.msgid for one in found] == order
    for one in found:
        assert isinstance(one.outcome, dict)
        assert one.outcome["plaintext"] == expected[one.msgid]
    assert conversation.outstanding == 0
    assert set(bytes(conversation._buffer)) == {0}, "something received was left behind"


def test_an_outgrown_buffer_is_wiped() -> None:
    conversation = Conversation()
    msgid, _ = conversation.begin(keys.decrypt("v/k", b""))
    answer = reply(msgid, {"plaintext": b"\xaa" * 200_000, "version": 1})
    first = conversation._buffer
    feed(conversation, answer[:60_000])
    assert b"\xaa" in first
    feed(conversation, answer[60_000:])
    assert conversation._buffer is not first
    assert set(first) == {0}


def test_a_secret_is_moved_out_of_the_buffer_and_what_is_public_copied() -> None:
    """At once, by a copy as long: it clears the vector registers that the first went through."""
    secret, public = bytearray(b"\xaa" * 40), bytearray(b"\xbb" * 40)
    assert decode_result("secret.get", {"value": memoryview(secret)}) == {"value": b"\xaa" * 40}
    assert decode_result("key.sign", {"signature": memoryview(public)}) == {"signature": b"\xbb" * 40}
    assert (set(secret), set(public)) == ({0}, {0xBB})


def test_half_an_answer_is_wiped_when_the_connection_is_given_up() -> None:
    conversation = Conversation()
    msgid, _ = conversation.begin(keys.decrypt("v/k", b""))
    feed(conversation, reply(msgid, {"plaintext": b"\xaa" * 100, "version": 1})[:80])
    assert b"\xaa" in conversation._buffer
    conversation.wipe()
    assert set(conversation._buffer) == {0}


def test_what_is_sent_is_what_was_given_not_a_copy() -> None:
    given_ = bytearray(b"canary")
    _, pieces = Conversation().begin(keys.encrypt("v/k", given_))
    assert any(isinstance(piece, memoryview) and piece.obj is given_ for piece in pieces)
    assert not any(b"canary" in piece for piece in pieces if isinstance(piece, bytes))


def test_errors_are_values() -> None:
    conversation = Conversation()
    msgid, _ = conversation.begin(keys.decrypt("v/k", b""))
    (answered,) = feed(conversation, reply(msgid, None, [200, "key.unknown: No such key."]))
    assert isinstance(answered.outcome, KeyFault)
    assert answered.outcome.message == "No such key."


def test_an_answer_nobody_asked_for_and_a_notification_are_ignored() -> None:
    conversation = Conversation()
    assert feed(conversation, reply(77, {"plaintext": b"\xaa"}) + msgpack.packb([2, "news", []])) == []
    assert set(conversation._buffer) == {0}


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400\r\n", b"\x94\x01\x01\xc0\xc1", msgpack.packb([1, None, None, 1])])
@given(good=st.integers(0, 3), data=st.data())
def test_nonsense_costs_nothing_that_was_good_before_it(garbage: bytes, good: int, data: st.DataObject) -> None:
    conversation = Conversation()
    asked = [conversation.begin(keys.decrypt("v/k", b""))[0] for _ in range(3)]
    answers = b"".join(reply(msgid, {"plaintext": b"\xaa" * 40, "version": 1}) for msgid in asked[:good])
    stream = answers + garbage + reply(asked[-1], {"plaintext": b"\xaa" * 40, "version": 1})
    cuts = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=4))})
    found: list[Answered] = []
    for begin, end in pairwise(cuts):
        found += feed(conversation, stream[begin:end])
    assert [one.msgid for one in found] == asked[:good]
    assert isinstance(conversation.nonsense, Unintelligible)
    assert set(conversation._buffer) == {0}


def test_a_message_the_daemon_would_not_take_is_not_begun() -> None:
    conversation = Conversation()
    conversation.message_bytes = 100
    with pytest.raises(RequestFault) as caught:
        conversation.begin(system.ping(bytes(100)))
    assert caught.value.code == "request.too_large"
    assert conversation.outstanding == 0


def test_msgids_go_round_past_those_outstanding() -> None:
    conversation = Conversation()
    first, _ = conversation.begin(system.ping())
    conversation._last = 0xFFFF_FFFF
    assert conversation.begin(system.ping())[0] == 0
    assert conversation.begin(system.ping())[0] == first + 1


def test_an_untyped_call() -> None:
    conversation = Conversation()
    operation = operate_untyped("secret.get", {"secret": "v/s", "version": None})
    assert operation.params == {"secret": "v/s"}
    assert operation.repeatable
    assert not operate_untyped("x.invented", {}).repeatable
    msgid, _ = conversation.begin(operation)
    (answered,) = feed(conversation, reply(msgid, {"value": b"x", "version": 1}))
    assert not isinstance(answered.outcome, Exception)
    assert operation.finish(answered.outcome) == {"value": Secret(b"x"), "version": 1}


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 30))
def test_behind(pieces: list[bytes], count: int) -> None:
    whole = b"".join(pieces)
    count = min(count, len(whole))
    assert b"".join(behind(list(pieces), count)) == whole[count:]
