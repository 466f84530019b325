"""Lines: whole, bounded, never in the way."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.observe.log import (
    LINE_MOST,
    REPEATS_MOST,
    REPEATS_SECONDS,
    Category,
    Form,
    Level,
    Log,
    Sink,
    form_for,
)


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
    for _ in range(REPEATS_MOST + 30):
        log.warning("request.failed")
    log.warning("another")
    assert len(pipe.lines()) == REPEATS_MOST + 1
    now[0] += REPEATS_SECONDS
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
