"""Process events: what is read of a datagram, and what two ways of knowing make of it together."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openk_memory import ptrace_events
from openk_memory.errors import Unsupported
from openk_memory.ptrace_events import Answer, Attached, Heard, PtraceEvents, parse
from openk_memory.tracers import Sight, Tracers

# As the kernel wrote them (Linux 6.18, x86-64): its answer to a listener who asked with ack 5, and an attaching.
ANSWER = bytes.fromhex(
    "4c00000003000000e35f000000000000 0100000001000000e35f00000600000028000000"
    "0000000000000000588bd80ca3040000 000000000000000000000000000000000000000000000000"
)
ATTACHED = bytes.fromhex(
    "4c00000003000000745e000000000000 0100000001000000745e00000000000028000000"
    "0001000001000000f68aba11a3040000 6b4e00006b4e0000944e0000944e00000000000000000000"
)


def message(
    what: int = 0x100, fields: tuple[int, int, int, int] = (7, 7, 9, 9), idx: int = 1, val: int = 1, kind: int = 3
) -> bytes:
    event = struct.pack("=IIQIIII8x", what, 0, 0, *fields)
    body = struct.pack("=IIIIHH", idx, val, 0, 0, len(event), 0) + event
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_what_the_kernel_wrote() -> None:
    assert list(parse(ANSWER)) == [Answer(6, 0)]
    assert list(parse(ATTACHED)) == [Attached(20075, 20116)]


@pytest.mark.parametrize(
    "other",
    [
        message(what=1), message(what=0x80000000), message(fields=(7, 7, 0, 0)),  # a fork, an exit, a tracer that leaves
        message(idx=2), message(val=2), message(kind=2), message(kind=4),
    ],
    ids=["fork", "exit", "leaves", "idx", "val", "error", "overrun"],
)  # fmt: skip
def test_what_concerns_no_tracer_is_passed_over(other: bytes) -> None:
    assert list(parse(other + ATTACHED + other)) == [Attached(20075, 20116)]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1)), max_size=5), st.binary(max_size=15))
def test_each_message_of_a_datagram_is_read(pairs: list[tuple[int, int]], rest: bytes) -> None:
    datagram = b"".join(message(fields=(1, process, 2, tracer)) for process, tracer in pairs)
    assert list(parse(datagram + rest)) == [Attached(*pair) for pair in pairs]


@given(st.integers(0, len(ATTACHED) - 1))
def test_a_message_that_was_cut_says_nothing(length: int) -> None:
    assert list(parse(ATTACHED + ATTACHED[:length])) == [Attached(20075, 20116)]


@given(st.integers(0, 40), st.integers(0, 2**16 - 1))
@example(0, 0)  # it would never get past this one
def test_a_length_that_lies_says_nothing(at: int, value: int) -> None:
    """Whatever two bytes say: no error, and no process that was not named."""
    lying = bytearray(ATTACHED)
    struct.pack_into("=H", lying, at, value)
    for event in parse(bytes(lying)):
        assert event in (Attached(20075, 20116), Answer(value, 20075), Answer(0, 20075))


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda more: ATTACHED[:16] + more))
def test_garbage(datagram: bytes) -> None:
    for event in parse(datagram):
        assert isinstance(event, Attached | Answer)


class Channel:
    """A socket: each item is a datagram with the port it came from, or an error."""

    def __init__(self, *items: tuple[bytes, int] | OSError) -> None:
        self.items = list(items)

    def recvmsg(self, _: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self.items:
            raise BlockingIOError
        item = self.items.pop(0)
        if isinstance(item, OSError):
            raise item
        return item[0], [], 0, (item[1], 1)

    def send(self, _: bytes) -> None:
        """What it is asked changes nothing."""

    def close(self) -> None:
        self.items = []


def hearing(*items: tuple[bytes, int] | OSError) -> PtraceEvents:
    events = PtraceEvents()
    events._socket = Channel(*items)  # type: ignore[assignment]
    return events


def of_me(tracer: int) -> bytes:
    return message(fields=(1, os.getpid(), tracer, tracer))


def test_only_the_kernel_is_believed_and_only_of_this_process() -> None:
    events = hearing((of_me(40), 4711), (of_me(41), 0), (ATTACHED, 0), (of_me(42) + of_me(41), 0), (ANSWER, 0))
    assert events.read() == Heard((41, 42))
    assert events.read() == Heard()


def test_what_was_lost_is_said_once_and_the_rest_is_read() -> None:
    events = hearing((of_me(41), 0), OSError(105, "No buffer space available"), (of_me(42), 0))
    assert events.read() == Heard((41, 42), lost=True)
    assert events.read() == Heard()


def test_a_flood_is_read_in_bounded_parts() -> None:
    flood: Iterable[tuple[bytes, int]] = [(of_me(1 + number), 0) for number in range(ptrace_events.MOST + 1)]
    events = hearing(*flood)
    assert events.read() == Heard(tuple(range(1, 1 + ptrace_events.NAMED)), lost=True)
    assert events.read() == Heard((ptrace_events.MOST + 1,))


def test_closed_it_is_silent() -> None:
    events = hearing((of_me(41), 0))
    events.close()
    events.close()
    assert (events.read(), events.channel) == (Heard(), None)


@pytest.mark.parametrize("answer", [b"", message(what=0), message()], ids=["none", "another's", "an event"])
def test_a_kernel_that_does_not_answer_is_not_believed(answer: bytes) -> None:
    """No answer at all, one to somebody else, an event in its place."""
    channel = Channel(*[(answer, 0)] * bool(answer))
    with pytest.raises(Unsupported, match="the kernel does not answer: a tracer that comes and goes"):
        ptrace_events._listen(channel)  # type: ignore[arg-type]


def test_its_answer_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda _: b"\x00\x00\x05")
    ptrace_events._listen(Channel((message(what=0), 0), (ANSWER, 0)))  # type: ignore[arg-type]
    refusal = bytearray(ANSWER)
    struct.pack_into("=I", refusal, 52, 1)
    with pytest.raises(PermissionError):
        ptrace_events._listen(Channel((bytes(refusal), 0)))  # type: ignore[arg-type]
    with pytest.raises(Unsupported):
        ptrace_events._listen(Channel((ANSWER, 4711)))  # type: ignore[arg-type]


class Telling:
    """What TracerPid and the events say, look by look."""

    def __init__(self, *looks: tuple[int, Heard]) -> None:
        self.looks = list(looks)
        self.now = self.looks[0]

    def read(self) -> Heard:
        self.now = self.looks.pop(0)
        return self.now[1]

    def find(self) -> int:
        return self.now[0]


def test_both_ways_of_knowing_make_one_sight() -> None:
    telling = Telling(
        (0, Heard()),
        (0, Heard((7,))),  # came and went
        (8, Heard((8,))),  # told of, and still there
        (8, Heard()),
        (9, Heard((7, 9))),
        (0, Heard()),
        (5, Heard()),  # seen before it was told of
        (5, Heard((5,))),
        (0, Heard(lost=True)),
    )
    tracers = Tracers(telling.find)
    tracers.events = telling  # type: ignore[assignment]
    seen = [tracers.look() for _ in range(9)]
    assert [each.tracers for each in seen] == [(), (7,), (8,), (), (7, 9), (), (5,), (), ()]
    assert [each.gone for each in seen] == [False] * 5 + [True, False, False, True]
    assert seen[-1] == Sight((), gone=True, lost=True)
