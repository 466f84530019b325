"""The worker's loop against a daemon that says anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_hsm import frames, journal
from openk_hsm.errors import HsmError, Unavailable
from openk_hsm.frames import BadFrame, Call, Hello, Intent
from openk_hsm.operation_log import OperationLog
from openk_hsm.repeats import MOST
from openk_hsm.roots import ROOT_MAC
from openk_hsm.seam import Mechanism, OpCode
from openk_hsm.service import Service, receive_hello
from openk_hsm.software import SoftwareBackend
from openk_memory.handoff import HandOff

SIZE = 8192
RUN = 0x71FD0A6E


class Gone(SoftwareBackend):
    """A token that is pulled out."""

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        raise Unavailable("pulled out", device="CKR_DEVICE_REMOVED")


@contextmanager
def served(backend: SoftwareBackend, slow: float = 0.0) -> Iterator[tuple[socket.socket, HandOff, Service]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs), HandOff.create(SIZE) as region:
        backend.open(region.view, region.address, lambda: memoryview(b""))
        yield ours, region, Service(theirs, backend, region, lambda: None, OperationLog(RUN, slow))


def batch(*rows: tuple[int, ...]) -> bytes:
    return frames.HEADER.pack(frames.BATCH, 0, len(rows), 5000) + b"".join(frames.REQUEST.pack(*row) for row in rows)


MAC = (256, OpCode.MAC, Mechanism.HMAC_SHA_256, 0, ROOT_MAC.slot, 0, 0, 4, 64, 32, 0x18)


def run(
    messages: list[bytes], backend: SoftwareBackend | None = None, slow: float = 0.0
) -> tuple[list[bytes], Exception | None]:
    """What the worker answers to these messages, and how it ends."""
    with served(backend or SoftwareBackend(allow=True), slow) as (daemon, _, service):
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
    answers, ended = run([batch(MAC, (257, *MAC[1:]), (258, OpCode.RANDOM, 0, 0, 0, 0, 0, 0, 128, 16, 0))])
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
        (1, OpCode.RANDOM, 0, 0, 0, 0, 0, 0, SIZE - 15, 16, 0),
        (1, OpCode.RANDOM, 0, 0, 0, 0, 0, 0, 0, 2**32 - 1, 0),
        (*MAC[:5], SIZE - 3, 0, 4, 64, 32, 0),
        (*MAC[:5], 0, 2**32 - 1, 4, 64, 32, 0),
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
    st.integers(0, 2**64 - 1),
)
CALLS = ["load_resident", "load_wrapped", "unload", "generate", "generate_resident", "destroy_resident", "objects", "attest",
         "notices", "health"]
THINGS = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**64 - 1), st.integers(0, 9), st.binary(max_size=9), st.text(max_size=9), st.none(),
        st.booleans(), st.floats(), st.sampled_from([["p-256", "sign"], ["aes-256-gcm", "data"]]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
GOOD: list[tuple[str, list[object]]] = [
    ("load_resident", [7, ["p-256", "sign"], "label", b"id"]),
    ("load_wrapped", [7, ["p-256", "sign"], 0, 1, b"context", b"blob"]),
    ("generate", [["p-256", "sign"], 0, 1, b"context"]),
    ("generate_resident", [["p-256", "sign"], "label", b"id"]),
    ("destroy_resident", ["label", b"id"]),
    ("attest", ["label", b"id"]),
    ("notices", [0]),
    ("unload", [7]),
]


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good call with one argument that is something else, or too many or too few of them."""
    method, good = draw(st.sampled_from(GOOD))
    arguments: list[object] = [*good]
    at = draw(st.integers(0, len(arguments)))
    arguments[at : at + draw(st.integers(0, 1))] = draw(st.lists(THINGS, max_size=1))
    return frames.pack_call(Call(draw(st.integers(0, 2**32 - 1)), method, tuple(arguments)), 1000)


MESSAGES = st.one_of(
    spoilt(),
    st.binary(max_size=60),
    st.lists(ROWS, max_size=4).map(lambda rows: batch(*rows)),
    st.builds(
        lambda seq, method, arguments: frames.pack_call(Call(seq, method, tuple(arguments)), 1000),
        st.integers(0, 2**32 - 1),
        st.sampled_from([*CALLS, "open", "close"]),
        st.lists(THINGS, max_size=6),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MESSAGES.filter(bool), max_size=4))
def test_whatever_a_daemon_says_the_worker_answers_or_hangs_up(messages: list[bytes]) -> None:
    _, ended = run(messages)
    assert ended is None or isinstance(ended, BadFrame | OSError)


@pytest.mark.parametrize(("method", "at"), [(method, at) for method, good in GOOD for at in range(len(good))])
@pytest.mark.parametrize("wrong", [None, True, {}, 1.5])
def test_an_argument_of_another_type_is_a_bad_frame_before_the_back_end_sees_it(
    method: str, at: int, wrong: object
) -> None:
    arguments: list[object] = [*dict(GOOD)[method]]
    arguments[at] = wrong
    answers, ended = run([frames.pack_call(Call(256, method, tuple(arguments)), 1000)])
    assert answers == []
    assert isinstance(ended, BadFrame)


def test_the_region_comes_with_the_hello() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs), HandOff.create(4096) as region:
        socket.send_fds(ours, [frames.pack_hello(Hello(4096))], [region.fd])
        hello, mapped = receive_hello(theirs)
        assert hello == Hello(4096, Intent.OPEN)
        assert mapped is not None
        with mapped:
            region.view[:5] = b"hello"
            assert bytes(mapped.view[:5]) == b"hello"
        for message, fds in (
            (b"nonsense", []),
            (frames.pack_hello(Hello(4096)), []),
            (frames.pack_hello(Hello(8192)), [region.fd]),
            (frames.pack_hello(Hello(4096)), [0]),
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


# --- what its log says ---


def told(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The lines that were written, without what is different each time."""
    lines: list[dict[str, object]] = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    return [{k: v for k, v in line.items() if k not in {"time", "pid", "wait_ms", "device_ms", "text"}} for line in lines]


@pytest.fixture(autouse=True)
def _fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept back because of what earlier tests wrote."""
    monkeypatch.setattr(journal, "_JOURNAL", journal._Journal())


UNFIT = (OpCode.SIGN, *MAC[2:10])
REFUSED = {"level": "info", "event": "operation refused", "operation": "sign", "mechanism": "hmac_sha_256",
           "key": "openk-root-mac", "code": "key.input_invalid", "device": "CKR_KEY_FUNCTION_NOT_PERMITTED"}  # fmt: skip


def test_each_refusal_names_its_own_request_and_nothing_else_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    run([batch(MAC, (257, *UNFIT, 0x19), (258, *MAC[1:10], 0x1A), (259, *UNFIT, 0x1B), (260, *UNFIT, 0))])
    refused_for = [REFUSED | {"request": f"71fd0a6e-{number}"} for number in ("19", "1b")]
    assert told(capfd) == [*refused_for, REFUSED]


def test_a_call_and_what_depends_on_it_name_their_requests(capfd: pytest.CaptureFixture[str]) -> None:
    load = Call(1 << 8, "load_resident", (77, ["p-256", "sign"], "none", b"none"), 0x20)
    run([frames.pack_call(load, 100), batch((512, *MAC[1:4], 77, *MAC[5:10], 0x21))])
    assert [(line["request"], line["operation"], line["key"], line["event"]) for line in told(capfd)] == [
        ("71fd0a6e-20", "load_resident", "none", "operation refused"),
        ("71fd0a6e-21", "mac", "none", "operation refused"),
    ]


def test_a_device_in_trouble_names_the_request_that_met_it(capfd: pytest.CaptureFixture[str]) -> None:
    run([batch(MAC)], Gone(allow=True))
    (line,) = told(capfd)
    assert line == {
        "level": "error", "event": "device trouble", "request": "71fd0a6e-18", "operation": "mac",
        "mechanism": "hmac_sha_256", "key": "openk-root-mac", "code": "hsm.unavailable", "device": "CKR_DEVICE_REMOVED",
    }  # fmt: skip


class Slow(SoftwareBackend):
    """A device that takes its time for one input."""

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        if length == 5:
            time.sleep(0.05)
        return super().mac(slot, mechanism, at, length, out, room)


def test_what_is_slow_says_for_whom_and_where_the_time_went(capfd: pytest.CaptureFixture[str]) -> None:
    slow = (257, *MAC[1:7], 5, 64, 32, 0x19)
    run([batch(MAC, slow, (258, *MAC[1:10], 0x1A))], Slow(allow=True), slow=0.04)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    slowest = max(lines, key=lambda line: float(line["device_ms"]))
    assert (slowest["event"], slowest["level"], slowest["code"]) == ("operation slow", "warning", "ok")
    assert slowest["request"] == "71fd0a6e-19"
    assert slowest["device_ms"] >= 50
    assert slowest["wait_ms"] >= 0
    run([batch(MAC, slow)], Slow(allow=True), slow=0.0)
    assert told(capfd) == []


def test_what_is_done_again_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    again = bytearray(batch(MAC))
    again[1] = 2
    run([bytes(again), frames.pack_call(Call(512, "objects", (), 0x22), 1000, 1), batch(MAC)])
    assert [(line["event"], line["request"], line["deaths"]) for line in told(capfd)] == [
        ("operation done again", "71fd0a6e-18", 2), ("operation done again", "71fd0a6e-22", 1),
    ]  # fmt: skip


def test_at_debug_each_operation_is_told_of_and_nothing_of_its_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    journal.open_journal(debug=True)
    rows = [(256 + at, *MAC[1:10], at + 1) for at in range(60)]
    with served(SoftwareBackend(allow=True)) as (daemon, region, service):
        region.view[:4] = b"\xc3\xa5Zq"
        daemon.send(batch(*rows))
        daemon.shutdown(socket.SHUT_WR)
        service.run()
        answer = bytes(region.view[64:96])
    said = capfd.readouterr().err
    assert [json.loads(line)["request"] for line in said.splitlines()] == [f"71fd0a6e-{at + 1:x}" for at in range(60)]
    assert json.loads(said.splitlines()[0])["event"] == "operation done"
    assert answer.hex() not in said
    assert "Zq" not in said


def test_a_client_cannot_fill_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    run([batch(*((256 + at, *UNFIT, at + 1) for at in range(100)))])
    assert len(told(capfd)) == MOST
