"""The device's log, followed: what we sent is matched, what others did is told, and nothing of it twice."""

from __future__ import annotations

import struct
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_hsm.errors import HsmError
from openk_hsm.yubihsm.entries import NOWHERE, Entry, Sent, fits, parse_entries
from openk_hsm.yubihsm.log import CAPACITY, DRAIN_AT, DeviceLog
from openk_hsm.yubihsm.matching import explain

OURS, THEIRS = 2, 1
HMAC, LIST = 0x53, 0x48
LOGGED = frozenset({HMAC, LIST, 0x03, 0x04, 0x4E})


class Device:
    """Its log, as the device keeps it."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.digest = bytes(16)
        self.entries: list[Entry] = []

    def do(self, command: int, session: int = OURS, target: int = 7, *, length: int = 3, result: int = 0) -> Entry:
        self.number = (self.number + 1) & 0xFFFF
        head = struct.pack(
            ">HBHHHHBL", self.number, command, length, session, target, NOWHERE, result or command | 0x80, 9
        )
        self.digest = sha256(head + self.digest).digest()[:16]
        entry = Entry.parse(head + self.digest)
        self.entries.append(entry)
        del self.entries[:-CAPACITY]
        return entry

    def discard(self, index: int | None) -> None:
        if index is not None:
            self.entries = [entry for entry in self.entries if (entry.number - index - 1) & 0xFFFF < 0x8000]


def send(log: DeviceLog, command: int = HMAC, target: int = 7, *, answered: bool = True) -> None:
    sent = log.sends(command, 3, OURS, target)
    if sent is not None and answered:
        sent.answered = command | 0x80


def drain(log: DeviceLog, device: Device) -> list[str]:
    """What is new to tell."""
    before = log.notices(0)
    device.discard(log.take(0, 0, device.entries))
    return [notice.text for notice in log.notices(before[-1].number if before else 0)]


@pytest.fixture
def device() -> Device:
    device = Device()
    device.do(0x00, NOWHERE, 0, length=0)
    return device


@pytest.fixture
def log(device: Device) -> DeviceLog:
    log = DeviceLog(None, "0000000001", OURS)
    log.learn(LOGGED)
    assert drain(log, device) == []  # what was there before us is nobody's fault
    return log


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([HMAC, LIST]), st.integers(1, 3)), max_size=60), st.data())
def test_ours_are_matched_and_theirs_are_told(story: list[tuple[bool, int, int]], data: st.DataObject) -> None:
    device, log = Device(0xFFF0), DeviceLog(None, "0000000001", OURS)
    device.do(0x00, NOWHERE, 0, length=0)
    log.learn(LOGGED)
    drain(log, device)
    strangers = told = 0
    for ours, command, target in story:
        if ours:
            send(log, command, target)
            device.do(command, OURS, target)
        else:
            device.do(command, THEIRS, target)
            strangers += 1
        if data.draw(st.integers(0, 9)) == 0 or len(device.entries) > 50:
            texts = drain(log, device)
            told += sum(text.count("entry ") for text in texts) + sum(_more(text) for text in texts)
    texts = drain(log, device)
    told += sum(text.count("entry ") for text in texts) + sum(_more(text) for text in texts)
    assert told == strangers
    assert not log._sent


def _more(text: str) -> int:
    _, found, rest = text.partition("; and ")
    return int(rest.split()[0]) if found else 0


def test_a_changed_entry_breaks_the_chain(log: DeviceLog, device: Device) -> None:
    for _ in range(3):
        send(log)
        device.do(HMAC)
    raw = device.entries[-2].raw
    device.entries[-2] = Entry.parse(raw[:12] + bytes(4) + raw[16:])
    assert any("chain is broken" in text for text in drain(log, device))


def test_a_log_that_was_rewritten_whole_breaks_at_its_first_entry(log: DeviceLog, device: Device) -> None:
    send(log)
    device.digest = bytes(range(16))
    device.do(HMAC)
    assert any("chain is broken" in text for text in drain(log, device))


def test_a_command_of_ours_that_the_log_lacks_is_told(log: DeviceLog, device: Device) -> None:
    send(log, target=1)
    send(log, target=2)
    device.do(HMAC, target=2)
    assert any("lacks a command of ours" in text for text in drain(log, device))


def test_a_command_without_an_answer_may_be_there_or_not(log: DeviceLog, device: Device) -> None:
    send(log, target=1, answered=False)
    send(log, target=2)
    device.do(HMAC, target=2)
    send(log, target=3, answered=False)
    assert drain(log, device) == []
    device.do(HMAC, target=3)  # it was under way for long
    assert drain(log, device) == []
    assert drain(log, device) == []
    assert not log._sent


def test_refused_commands_match_by_their_code(log: DeviceLog, device: Device) -> None:
    sent = log.sends(HMAC, 3, OURS, 7)
    assert sent is not None
    sent.answered = 0x0B
    device.do(HMAC, result=0x0B)
    assert drain(log, device) == []
    send(log)
    device.do(HMAC, result=0x0B)
    assert drain(log, device)


def test_lost_entries_are_counted(log: DeviceLog, device: Device) -> None:
    for _ in range(CAPACITY + 5):
        device.do(HMAC, THEIRS)
    assert any("5 entries of the device's log are missing" in text for text in drain(log, device))


def test_a_reset_a_start_and_a_failed_login_are_told(log: DeviceLog, device: Device) -> None:
    device.do(0x00, NOWHERE, 0, length=0)
    device.do(0x04, NOWHERE, 5, result=0x04)
    texts = drain(log, device)
    assert any("started again" in text for text in texts)
    assert any("session with authentication key 5 and failed" in text for text in texts)
    alarms = [notice.alarm for notice in log.notices(0)]
    assert alarms == [False, True]
    fresh = Device()
    fresh.do(0xFF, NOWHERE, NOWHERE, length=NOWHERE)
    assert any("was reset" in text for text in drain(log, fresh))


def test_what_the_device_does_not_log_is_not_written_down(log: DeviceLog) -> None:
    assert log.sends(0x51, 2, OURS, NOWHERE) is None


def test_a_login_that_was_never_answered_hides_no_later_one(log: DeviceLog, device: Device) -> None:
    """A worker that could not reach the device has written its login down; the next one's looks just the same."""
    for command in (0x03, 0x04):
        log.sends(command, 10, NOWHERE, OURS)
    for command in (0x03, 0x04):
        sent = log.sends(command, 10, NOWHERE, OURS)
        assert sent is not None
        sent.answered = command | 0x80
        device.do(command, NOWHERE, OURS, length=10)
    assert drain(log, device) == []
    assert drain(log, device) == []


def test_a_log_that_is_read_before_it_is_known_what_is_logged_raises_no_alarm(log: DeviceLog, device: Device) -> None:
    """It was full at the login, or a process that was killed has left many commands behind."""
    fresh = DeviceLog(None, "0000000001", OURS)
    fresh.last = log.last
    for answered in (None, True):
        for command in (0x03, 0x04):
            sent = fresh.sends(command, 10, NOWHERE, OURS)
            assert sent is not None
            if answered:
                sent.answered = command | 0x80
                device.do(command, NOWHERE, OURS, length=10)
    send(fresh, 0x50)
    assert drain(fresh, device) == []
    fresh.learn(LOGGED)
    assert drain(fresh, device) == []
    assert drain(fresh, device) == []


ROW = st.tuples(st.sampled_from([HMAC, LIST, 0x67]), st.sampled_from([1, 2]), st.sampled_from(["yes", "no", "lost"]))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(ROW, st.sampled_from([HMAC, LIST])), max_size=6))
def test_the_explanation_is_the_cheapest_there_is(story: list[tuple[int, int, str] | int]) -> None:
    """Against trying every one. "lost": no answer came; then it may be in the log, or not."""
    device, sent = Device(), list[Sent]()
    for step in story:
        if isinstance(step, int):
            device.do(step, THEIRS)
            continue
        command, target, outcome = step
        sent.append(Sent(command, 3, OURS, target, NOWHERE, None if outcome == "lost" else command | 0x80))
        if outcome != "no":
            device.do(command, OURS, target)
    entries = device.entries

    def cheapest(row: int, column: int) -> int:
        if row == len(sent):
            return len(entries) - column
        costs = [cheapest(row + 1, column) + int(must_be_there(sent[row]))]
        if column < len(entries):
            costs.append(cheapest(row, column + 1) + 1)
            if fits(entries[column], sent[row]):
                costs.append(cheapest(row + 1, column + 1))
        return min(costs)

    expected = cheapest(0, 0)
    explained = explain(sent, entries)
    assert len(explained.strangers) + len(explained.missing) == expected


def must_be_there(sent: Sent) -> bool:
    return sent.answered is not None and sent.command != 0x67


def test_under_forced_audit_other_commands_may_be_logged_or_not(device: Device) -> None:
    log = DeviceLog(None, "0000000001", OURS)
    log.learn(LOGGED, forced=True)
    drain(log, device)
    for there in (True, False):
        send(log, 0x51)
        send(log, HMAC)
        if there:
            device.do(0x51)
        device.do(HMAC)
        assert drain(log, device) == []
    assert not log._sent


def test_the_log_is_due_before_it_is_full(log: DeviceLog) -> None:
    for _ in range(DRAIN_AT):
        assert not log.due
        send(log)
    assert log.due


def test_a_process_that_was_killed_leaves_no_false_alarm(tmp_path: Path, device: Device) -> None:
    log = DeviceLog(tmp_path, "0000000001", OURS)
    log.learn(LOGGED)
    drain(log, device)
    for target in (1, 2, 3):
        send(log, target=target)
        device.do(HMAC, target=target)
    send(log, target=4)  # never reached the device
    again = DeviceLog(tmp_path, "0000000001", OURS)
    assert again.last == log.last
    again.learn(LOGGED)
    assert drain(again, device) == []
    archive = (tmp_path / "yubihsm-0000000001.log").read_bytes()
    assert len(archive) == 32 * 4
    entries = [Entry.parse(archive[at : at + 32]) for at in range(0, len(archive), 32)]
    assert all(entry.follows(before.digest) for before, entry in pairwise(entries))


def test_entries_that_come_again_are_not_taken_twice(tmp_path: Path, device: Device) -> None:
    log = DeviceLog(tmp_path, "0000000001", OURS)
    log.learn(LOGGED)
    log.take(0, 0, device.entries)  # and the process dies before the device may forget them
    device.do(HMAC, THEIRS)
    again = DeviceLog(tmp_path, "0000000001", OURS)
    again.learn(LOGGED)
    assert len(drain(again, device)) == 1
    assert (tmp_path / "yubihsm-0000000001.log").stat().st_size == 64


def test_notices_outlive_the_process_and_their_numbers_grow(tmp_path: Path, device: Device) -> None:
    numbers: list[int] = []
    for target in (1, 2):
        log = DeviceLog(tmp_path, "0000000001", OURS)
        log.learn(LOGGED)
        drain(log, device)
        device.do(HMAC, THEIRS, target)
        drain(log, device)
        numbers = [notice.number for notice in log.notices(0)]
        log.close()
    assert len(numbers) == 2
    assert numbers == sorted(set(numbers))
    assert log.notices(numbers[0])[0].number == numbers[1]


def test_a_cut_archive_and_a_cut_notice_are_mended(tmp_path: Path, device: Device) -> None:
    log = DeviceLog(tmp_path, "0000000001", OURS)
    log.learn(LOGGED)
    drain(log, device)
    with (tmp_path / "yubihsm-0000000001.log").open("ab") as file:
        file.write(b"half an entry")
    harmed = b'{"number": Infinity, "at": 1, "alarm": true, "text": "x"}\n\xff\n' + b"[" * 65_000 + b'\n{"number": 1, "at"'
    (tmp_path / "yubihsm-0000000001.notices").write_bytes(harmed)
    again = DeviceLog(tmp_path, "0000000001", OURS)
    assert again.last == log.last
    assert again.notices(0) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HsmError, match="cannot be kept in"):
        DeviceLog(tmp_path / "none", "0000000001", OURS)


@given(st.binary(max_size=200))
def test_any_answer_is_entries_or_refused(answer: bytes) -> None:
    try:
        _, _, entries = parse_entries(answer)
    except HsmError:
        return
    assert 5 + 32 * len(entries) == len(answer)


def test_a_real_devices_digest() -> None:
    """Two entries of a YubiHSM 2 with firmware 2.0."""
    head = struct.pack(">HBHHHHBL", 47, 0x4C, 77, 1, 0xAFF7, NOWHERE, 0xCC, 351714)
    entry = Entry.parse(head + bytes.fromhex("5496a60d478c2b9c801d8d32ca66b554"))
    assert entry.follows(bytes.fromhex("415f51f1f035a1b713e730e4464e4033"))
    assert not entry.follows(bytes(16))
