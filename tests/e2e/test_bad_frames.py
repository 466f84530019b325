"""Bytes that are no request, from a client that means no good: each answered or cut off, none felt by anybody else."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Iterator

import pytest

import openk
from tests.support.daemon import RunningDaemon
from tests.support.frames import Raw, request

PING = b"\x94\x00\x01\xabsystem.ping\x90"


@pytest.fixture
def raw(daemon: RunningDaemon) -> Iterator[Raw]:
    made = Raw(str(daemon.socket))
    yield made
    made.close()
    with daemon.client() as other:  # whatever it was, the others are served, and so is the next
        assert other.system.ping(b"still here") == b"still here"
        assert other.system.health().status == "ok"


def nested(depth: int) -> bytes:
    return b"\x94\x00\x07\xabsystem.ping\x91\x81\xa4echo" + b"\x91" * depth + b"\xc0"


SKIPPED = {
    "a key twice": b"\x94\x00\x07\xabsystem.ping\x91\x82\xa4echo\xa1a\xa4echo\xa1b",
    "too deep": nested(20),
    "a key that is no text": b"\x94\x00\x07\xabsystem.ping\x91\x81\x05\xa1a",
    "an extension type": b"\x94\x00\x07\xabsystem.ping\x91\x81\xa4echo\xd4\x05\x00",
    "params that are no list": b"\x94\x00\x07\xabsystem.ping\x05",
    "two maps": b"\x94\x00\x07\xabsystem.ping\x92\x80\x80",
    "a method that is no text": b"\x94\x00\x07\x05\x90",
    "a method that is no UTF-8": b"\x94\x00\x07\xa2\xff\xfe\x90",
    "an unknown method": request("key.steal", {}),
    "an unknown field": request("system.ping", {"ecco": b""}),
    "nil for a field": request("system.ping", {"echo": None}),
    "a field of another type": request("vault.create", {"vault": 17}),
    "a field that is missing": request("vault.create", {}),
    "a number below its range": request("random.bytes", {"length": -1}),
    "a number above its range": request("random.bytes", {"length": 1 << 40}),
    "an empty batch": request("key.encrypt", {"key": "a/b", "items": []}),
    "a batch and one item": request("key.encrypt", {"key": "a/b", "input": b"", "items": [{"input": b""}]}),
    "a batch where there is none": request("system.ping", {"items": [{"input": b""}]}),
}
CLOSED = {
    "garbage": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "the byte that begins no value": b"\x94\x00\x07\xabsystem.ping\x91\xc1",
    "a list of five": b"\x95\x00\x07\xabsystem.ping\x90\x90",
    "more bytes than are allowed": b"\x94\x00\x07\xabsystem.ping\x91\x81\xa4echo\xc6\x7f\xff\xff\xff",
    "more elements than are allowed": b"\x94\x00\x07\xabsystem.ping\x91\xdd\xff\xff\xff\xff",
    "a msgid that is none": b"\x94\x00\xa1x\xabsystem.ping\x90",
}


@pytest.mark.parametrize("name", SKIPPED)
def test_what_is_no_request_is_refused_and_the_next_one_answered(raw: Raw, name: str) -> None:
    raw.send(SKIPPED[name] + PING)
    answers = {answer[1]: answer for answer in (raw.answer(), raw.answer()) if answer is not None}
    assert answers[1] == [1, 1, None, {}]
    error = answers[7][2]
    assert str(error).startswith(("[100, 'request.invalid: ", "[102, 'request.unknown_method: "))


@pytest.mark.parametrize("name", CLOSED)
def test_what_cannot_be_followed_ends_the_connection(daemon: RunningDaemon, raw: Raw, name: str) -> None:
    raw.send(PING + CLOSED[name])
    answers = raw.answers()
    assert answers.pop(1) == [1, 1, None, {}]
    assert len(answers) <= 1
    assert "frame.invalid" in daemon.log


@pytest.mark.parametrize("cut", [1, 2, 3, 10, len(PING) - 1])
def test_a_truncated_frame_costs_only_its_connection(raw: Raw, cut: int) -> None:
    raw.send(PING[:cut])
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.answer() is None


def test_a_frame_that_comes_byte_by_byte_is_answered(raw: Raw) -> None:
    for byte in request("system.ping", {"echo": b"slow"}):
        raw.send(bytes([byte]))
    assert raw.answer() == [1, 7, None, {"echo": b"slow"}]


def test_noise_never_harms(daemon: RunningDaemon, raw: Raw) -> None:
    """Random bytes, and requests with one byte changed, on 150 connections."""
    chance = random.Random(20)
    good = request("key.encrypt", {"key": "no-vault/key", "input": b"x" * 40, "aad": b"y"})
    for number in range(150):
        noise = bytearray(good) if number % 2 else bytearray(chance.randbytes(chance.randrange(1, 400)))
        noise[chance.randrange(len(noise))] ^= 1 << chance.randrange(8)
        one = Raw(str(daemon.socket))
        try:
            one.send(bytes(noise) + PING)
            one.socket.shutdown(socket.SHUT_WR)
            while one.answer() is not None:
                continue
        except (BrokenPipeError, ConnectionResetError):
            continue
        finally:
            one.close()
    raw.send(PING)
    assert raw.answer() == [1, 1, None, {}]


def test_announcements_of_much_take_little(daemon: RunningDaemon, raw: Raw) -> None:
    """A hundred connections announce a megabyte each and send nothing: no memory is set aside for what is announced."""
    many = [Raw(str(daemon.socket)) for _ in range(100)]
    try:
        for one in many:
            one.send(b"\x94\x00\x07\xabsystem.ping\x91\x81\xa4echo\xc6" + struct.pack(">I", 1 << 19))
        with daemon.client() as client:
            memory = client.system.info()["locked_memory"]
            assert isinstance(memory, dict)
            assert int(str(memory["in_use"])) <= 110 * (16 << 10)
    finally:
        for one in many:
            one.close()
    raw.send(PING)
    assert raw.answer() == [1, 1, None, {}]


def test_requests_that_never_were_are_counted_and_recorded(client: openk.Client, raw: Raw) -> None:
    def invalid() -> float:
        lines = client.system.metrics().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("openk_frames_invalid"))

    before = invalid()
    raw.send(SKIPPED["a key twice"] + SKIPPED["an unknown method"])
    assert raw.answer()
    assert raw.answer()
    assert invalid() == before + 1
    outcomes = [json.loads(entry.entry).get("outcome") for entry in client.audit.tail(limit=20)]
    assert "request.invalid" in outcomes
    assert "request.unknown_method" in outcomes
