"""The worker's loop against a daemon that says anything."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_hsm import frames
from openk_hsm.errors import HsmError, Unavailable
from openk_hsm.frames import BadFrame, Call, Intent
from openk_hsm.seam import ROOT_MAC, Mechanism, OpCode
from openk_hsm.service import Service, receive_hello
from openk_hsm.software import SoftwareBackend
from openk_memory.handoff import HandOff

SIZE = 8192


class Gone(SoftwareBackend):
    """A token that is pulled out."""

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        raise Unavailable("pulled out", device="CKR_DEVICE_REMOVED")


@contextmanager
def served(backend: SoftwareBackend) -> Iterator[tuple[socket.socket, HandOff, Service]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs), HandOff.create(SIZE) as region:
        backend.open(region.view, region.address, lambda: memoryview(b""))
        yield ours, region, Service(theirs, backend, region, lambda: None)


def batch(*rows: tuple[int, ...]) -> bytes:
    return frames.HEADER.pack(frames.BATCH, 0, len(rows), 5000) + b"".join(frames.REQUEST.pack(*row) for row in rows)


MAC = (256, OpCode.MAC, Mechanism.HMAC_SHA_256, 0, ROOT_MAC.slot, 0, 0, 4, 64, 32)


def run(messages: list[bytes], backend: SoftwareBackend | None = None) -> tuple[list[bytes], Exception | None]:
    """What the worker answers to these messages, and how it ends."""
    with served(backend or SoftwareBackend(allow=True)) as (daemon, _, service):
        ended: Exception | None = None
        for message in messages:
            daemon.send(message)
        daemon.shutdown(socket.SHUT_WR)
        try:
            service.run()
        except (HsmError, OSError) as error:
            ended = error
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # or an idle worker would die of it
        daemon.setblocking(False)
        answers: list[bytes] = []
        while True:
            try:
                answers.append(daemon.recv(frames.MAX_MESSAGE))
            except BlockingIOError:
                return answers, ended


def test_a_batch_is_answered_in_order() -> None:
    answers, ended = run([batch(MAC, (257, *MAC[1:]), (258, OpCode.RANDOM, 0, 0, 0, 0, 0, 0, 128, 16))])
    assert ended is None
    (answer,) = answers
    assert list(frames.ROW.iter_unpack(answer[8:])) == [(256, 32), (257, 32), (258, 16)]


def test_answers_leave_before_a_long_batch_is_done() -> None:
    answers, _ = run([batch(*((256 + at, *MAC[1:]) for at in range(120)))])
    assert len(answers) == 2
    assert sum(len(answer) - 8 for answer in answers) == 120 * 8


def test_one_that_fails_does_not_stop_its_neighbours() -> None:
    unfit = (257, OpCode.SIGN, *MAC[2:])
    answers, ended = run([batch(MAC, unfit, (258, *MAC[1:]))])
    assert ended is None
    assert [answer[:1] for answer in answers] == [b"A", b"X", b"A"]
    assert frames.unpack_error(memoryview(answers[1]))[0] == 257


def test_a_key_that_did_not_load_says_why_at_each_use() -> None:
    load = Call(1 << 8, "load_resident", (77, ["p-256", "sign"], "none", b"none"))
    answers, ended = run([frames.pack_call(load, 100), batch((512, *MAC[1:4], 77, *MAC[5:]))])
    assert ended is None
    texts = [str(frames.unpack_error(memoryview(answer))[1]) for answer in answers]
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_a_device_that_has_gone_ends_the_worker_unanswered() -> None:
    answers, ended = run([batch(MAC)], Gone(allow=True))
    assert answers == []
    assert isinstance(ended, Unavailable)


@pytest.mark.parametrize(
    "outside",
    [
        (1, OpCode.RANDOM, 0, 0, 0, 0, 0, 0, SIZE - 15, 16),
        (1, OpCode.RANDOM, 0, 0, 0, 0, 0, 0, 0, 2**32 - 1),
        (*MAC[:5], SIZE - 3, 0, 4, 64, 32),
        (*MAC[:5], 0, 2**32 - 1, 4, 64, 32),
        (1, 99, *MAC[2:]),
    ],
)
def test_a_request_outside_the_region_is_not_executed(outside: tuple[int, ...]) -> None:
    answers, ended = run([batch(outside)])
    assert answers == []
    assert isinstance(ended, BadFrame)


ROWS = st.tuples(
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 40),
    st.integers(0, 6),
    *[st.integers(0, 2 * SIZE)] * 5,
)
MESSAGES = st.one_of(
    st.binary(max_size=60),
    st.lists(ROWS, max_size=4).map(lambda rows: batch(*rows)),
    st.builds(
        lambda seq, method, arguments: frames.pack_call(Call(seq, method, tuple(arguments)), 1000),
        st.integers(0, 2**32 - 1),
        st.sampled_from(
            ["load_resident", "load_wrapped", "unload", "generate_resident", "objects", "health", "open", "close"]
        ),
        st.lists(
            st.one_of(st.integers(0, 9), st.binary(max_size=9), st.text(max_size=9), st.just(["p-256", "sign"])),
            max_size=6,
        ),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MESSAGES.filter(bool), max_size=4))
def test_whatever_a_daemon_says_the_worker_answers_or_hangs_up(messages: list[bytes]) -> None:
    _, ended = run(messages)
    assert ended is None or isinstance(ended, BadFrame | OSError)


def test_the_region_comes_with_the_hello() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs), HandOff.create(4096) as region:
        socket.send_fds(ours, [frames.pack_hello(4096)], [region.fd])
        intent, mapped = receive_hello(theirs)
        assert intent is Intent.OPEN
        assert mapped is not None
        with mapped:
            region.view[:5] = b"hello"
            assert bytes(mapped.view[:5]) == b"hello"
        for message, fds in (
            (b"nonsense", []),
            (frames.pack_hello(4096), []),
            (frames.pack_hello(8192), [region.fd]),
            (frames.pack_hello(4096), [0]),
        ):
            socket.send_fds(ours, [message], fds)
            with pytest.raises(HsmError):
                receive_hello(theirs)


def test_no_descriptor_is_kept_of_a_bad_hello() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs), HandOff.create(4096) as region:
        count = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            socket.send_fds(ours, [b"x"], [region.fd, region.fd])
            with pytest.raises(BadFrame):
                receive_hello(theirs)
        assert len(os.listdir("/proc/self/fd")) == count
