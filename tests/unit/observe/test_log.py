"""Lines: whole, bounded, never in the way."""

import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.observe.log import (
    LINE_MOST,
    Category,
    Form,
    Level,
    Log,
    Sink,
    form_for,
)
from openk_hsm import journald
from openk_hsm.repeats import MOST, SECONDS


@dataclass
class Pipe:
    reader: int
    writer: int

    def lines(self) -> list[str]:
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 1 << 20).decode().splitlines()
        except BlockingIOError:
            return []


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    yield Pipe(reader, writer)
    os.close(reader)
    os.close(writer)


def log_on(pipe: Pipe, form: Form = Form.JSON, level: Level = Level.INFO, now: list[float] | None = None) -> Log:
    clock = (lambda: now[0]) if now else time.time
    return Log(Sink(pipe.writer, form, clock), Category.HSM, {Category.HSM: level})


def test_a_line_is_json_with_its_facts(pipe: Pipe) -> None:
    log_on(pipe, now=[1769851800.123456]).warning("worker.died", lane="main", pin=memoryview(b"1234"))
    (line,) = pipe.lines()
    assert json.loads(line) == {
        "time": "2026-01-31T09:30:00.123456Z", "level": "warning", "category": "hsm", "event": "worker.died",
        "lane": "main", "pin": "<memoryview of 4 bytes>",
    }  # fmt: skip


def test_journal_lines_carry_their_priority(pipe: Pipe) -> None:
    log = log_on(pipe, Form.JOURNAL)
    log.error("worker.died")
    log.info("worker.up")
    assert [line[:3] for line in pipe.lines()] == ["<3>", "<6>"]


def test_terminal_lines_cannot_be_forged(pipe: Pipe) -> None:
    log_on(pipe, Form.TERMINAL).info("worker.up", lane="a\n<0> forged \x1b[2J", plain="b")
    (line,) = pipe.lines()
    assert "\x1b" not in line
    assert line.endswith(' worker.up lane="a\\n<0> forged \\u001b[2J" plain=b')


def test_levels_are_per_category_and_debug_is_an_attribute(pipe: Pipe) -> None:
    log = Log(Sink(pipe.writer), Category.HSM, {Category.HSM: Level.ERROR, Category.POLICY: Level.DEBUG})
    log.warning("quiet")
    policy = log.child(Category.POLICY)
    assert (log.debugging, policy.debugging) == (False, True)
    policy.debug("loud")
    assert [json.loads(line)["event"] for line in pipe.lines()] == ["loud"]


def test_bound_facts_and_reserved_names(pipe: Pipe) -> None:
    log_on(pipe).bind(request="r1").info("x", level="mine", event="forged")
    line = json.loads(pipe.lines()[0])
    assert (line["request"], line["level"], line["event"], line["level_"], line["event_"]) == ("r1", "info", "x", "mine", "forged")


def test_an_event_that_repeats_is_counted(pipe: Pipe) -> None:
    now = [1000.0]
    log = log_on(pipe, now=now)
    for _ in range(MOST + 30):
        log.warning("request.failed")
    log.warning("another")
    assert len(pipe.lines()) == MOST + 1
    now[0] += SECONDS
    log.warning("request.failed")
    assert json.loads(pipe.lines()[0])["suppressed"] == 30


def test_a_stalled_reader_stalls_nobody_and_hears_what_it_missed(pipe: Pipe) -> None:
    log = log_on(pipe, level=Level.DEBUG)
    begun = time.monotonic()
    for _ in range(400):
        log.debug("flood", text="x" * 400)
    assert time.monotonic() - begun < 2
    assert log.dropped > 0
    kept = [json.loads(line) for line in pipe.lines()]
    assert len(kept) + log.dropped == 400
    log.debug("again")
    assert json.loads(pipe.lines()[0])["dropped"] == 400 - len(kept)


def test_a_closed_descriptor_is_survived() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(Sink(writer), Category.HSM, {})
    log.error("into.nothing")
    os.close(writer)
    log.error("into.less")
    assert log.dropped == 2


@given(
    st.sampled_from(Form),
    st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text(max_size=3000) | st.lists(st.text(max_size=600), max_size=40), max_size=6),
)
def test_every_line_fits_and_is_whole(form: Form, facts: dict[str, object]) -> None:
    reader, writer = os.pipe()
    pipe = Pipe(reader, writer)
    try:
        Log(Sink(writer, form), Category.HSM, {}).error("x", ValueError("y"), **facts)
        (line,) = pipe.lines()
        assert len(line.encode()) < LINE_MOST
        if form is not Form.TERMINAL:
            assert json.loads(line.removeprefix("<3>"))["event"] == "x"
    finally:
        os.close(reader)
        os.close(writer)


def test_the_form_follows_the_descriptor(pipe: Pipe) -> None:
    status = os.fstat(pipe.writer)
    assert form_for(pipe.writer, {}) is Form.JSON
    assert form_for(pipe.writer, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}) is Form.JOURNAL
    assert form_for(pipe.writer, {"JOURNAL_STREAM": "1:1"}) is Form.JSON
    primary, secondary = os.openpty()
    try:
        assert form_for(secondary, {}) is Form.TERMINAL
    finally:
        os.close(primary)
        os.close(secondary)


@pytest.mark.parametrize("form", Form)
def test_too_long_a_line_loses_its_longest_facts(pipe: Pipe, form: Form) -> None:
    facts: dict[str, object] = {f"f{number}": "x" * 500 for number in range(20)}
    log_on(pipe, form).error("x", lane="main", **facts)
    (line,) = pipe.lines()
    assert 3000 < len(line.encode()) < LINE_MOST
    assert "main" in line
    if form is not Form.TERMINAL:
        record = json.loads(line.removeprefix("<3>"))
        assert (record["cut"], record["lane"]) == (True, "main")


# --- journald ---


def read_entry(data: bytes) -> dict[str, str]:
    """A datagram of the native protocol, by the letter of its description."""
    fields: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.decode() not in fields, "each once"
        fields[name.decode()] = value.decode()
        data = rest
    return fields


FACT = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text(max_size=3), max_size=2))


@given(st.text(), st.dictionaries(st.text("abz09_-É=\n", min_size=1, max_size=80), FACT, max_size=6))
def test_an_entry_of_the_journal_is_read_back_as_it_was(message: str, facts: dict[str, object]) -> None:
    found = read_entry(journald.entry(message, 4, facts, "openkd"))
    encoded = message.encode("utf-8", "backslashreplace").decode()
    assert (found.pop("MESSAGE"), found.pop("PRIORITY"), found.pop("SYSLOG_IDENTIFIER")) == (encoded, "4", "openkd")
    for name, value in found.items():
        assert re.fullmatch(r"OPENK_[A-Z][A-Z0-9_]{0,57}", name)
        assert len(value) <= 6 * journald.VALUE_MOST
    assert len(found) == sum(isinstance(v, str | int) and bool(re.fullmatch(r"[a-z][a-z0-9_]{0,57}", k)) for k, v in facts.items())


def test_under_journald_a_line_has_fields_and_falls_back_to_the_stream(pipe: Pipe, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "journal"))
    sink = Sink(pipe.writer, Form.JOURNAL, journal=journald.connect(str(tmp_path / "journal")))
    log = Log(sink, Category.REQUESTS, {}).bind(request="0a-1")
    log.warning("request.slow", None, method="key.sign", pin=b"1234", ok=True, stages={"hsm": 1})
    found = read_entry(listener.recv(1 << 16))
    message = json.loads(found.pop("MESSAGE"))
    assert (message["event"], message["pin"], message["stages"]) == ("request.slow", "<bytes of 4 bytes>", {"hsm": 1})
    assert found == {
        "PRIORITY": "4", "SYSLOG_IDENTIFIER": "openkd", "OPENK_CATEGORY": "requests", "OPENK_EVENT": "request.slow",
        "OPENK_REQUEST": "0a-1", "OPENK_METHOD": "key.sign", "OPENK_PIN": "<bytes of 4 bytes>", "OPENK_OK": "1",
    }  # fmt: skip
    assert pipe.lines() == []
    listener.close()
    log.warning("request.slow", None, method="key.sign")
    (line,) = pipe.lines()
    assert line.startswith('<4>{"time"')
    assert log.dropped == 0
    assert journald.connect(str(tmp_path / "nothing")) is None
    assert sink.journal is not None
    sink.journal.close()
