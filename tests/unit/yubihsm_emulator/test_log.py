import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from yubihsm.core import AuthSession
from yubihsm.defs import ALGORITHM, AUDIT, CAPABILITY, COMMAND, ERROR
from yubihsm.exceptions import YubiHsmAuthenticationError, YubiHsmDeviceError
from yubihsm.objects import HmacKey, Opaque

from tests.support.emulator import Stand
from yubihsm_emulator.log import BOOT, CAPACITY, AuditLog, Event

LOGGABLE = [one for one in COMMAND if one not in {COMMAND.ERROR, COMMAND.SESSION_MESSAGE, COMMAND.DEVICE_INFO}]


@pytest.mark.parametrize(
    ("before", "number", "event", "digest"),
    [
        ("6830a758581287b99c4de5172126daf6", 2, BOOT, "838cc6336033da7208ef696638ba7dd9"),
        (
            "415f51f1f035a1b713e730e4464e4033",
            47,
            Event(0x4C, 77, 1, 0xAFF7, 0xFFFF, 0xCC, 351714),
            "5496a60d478c2b9c801d8d32ca66b554",
        ),
    ],
)
def test_digests_of_a_real_device(before: str, number: int, event: Event, digest: str) -> None:
    log = AuditLog(number - 1, bytes.fromhex(before), [])
    log.append(event)
    (entry,) = log
    assert (entry.number, entry.digest.hex()) == (number, digest)
    assert len(entry.raw) == 32


def test_after_a_reset_there_are_a_mark_and_a_boot() -> None:
    log = AuditLog.after_reset(bytes(32))
    assert [entry.data.hex() for entry in log] == ["0001" + "ff" * 14, "0002000000ffff000000000000000000"]


class LogStory(RuleBasedStateMachine):
    """Whatever is appended and discarded, the log is the newest entries in order, and its chain holds."""

    def __init__(self) -> None:
        super().__init__()
        self.log = AuditLog(0xFFFE, b"\7" * 16, [])  # so that numbers wrap soon
        self.expected: list[tuple[int, int]] = []
        self.number = 0xFFFE

    @rule(commands=st.lists(st.integers(0, 255), max_size=40))
    def append(self, commands: list[int]) -> None:
        for command in commands:
            self.log.append(Event(command, 0, 1))
            self.number = (self.number + 1) & 0xFFFF
            self.expected.append((self.number, command))
        del self.expected[:-CAPACITY]

    @rule(back=st.integers(0, 70))
    def discard(self, back: int) -> None:
        index = (self.number - back) & 0xFFFF
        known = [number for number, _ in self.expected]
        assert self.log.discard(index) == (index in known)
        if index in known:
            del self.expected[: known.index(index) + 1]

    @invariant()
    def holds(self) -> None:
        assert [(entry.number, entry.data[2]) for entry in self.log] == self.expected
        assert self.log.full == (len(self.expected) == CAPACITY)
        for one, following in pairwise(self.log):
            assert following.digest == hashlib.sha256(following.data + one.digest).digest()[:16]


TestLogStory = LogStory.TestCase


@pytest.fixture
def audited(session: AuthSession) -> AuthSession:
    session.set_command_audit(dict.fromkeys(LOGGABLE, AUDIT.ON))
    session.set_log_index(session.get_log_entries().entries[-1].number)
    return session


def lines(session: AuthSession) -> list[tuple[int, int, int, int, int, int]]:
    return [
        (one.command, one.length, one.session_key, one.target_key, one.second_key, one.result)
        for one in session.get_log_entries().entries
    ]


def test_entries_tell_who_did_what_to_which_key(stand: Stand, audited: AuthSession) -> None:
    with stand.session() as other:
        key = HmacKey.generate(other, 7, "k", 1, CAPABILITY.NONE, ALGORITHM.HMAC_SHA256)
        with pytest.raises(YubiHsmDeviceError):
            key.sign_hmac(b"x")
        Opaque.put(other, 8, "o", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_DATA, b"data").get()
    with pytest.raises(YubiHsmAuthenticationError):
        stand.connect().create_session_derived(1, "wrong")
    with pytest.raises(YubiHsmDeviceError):
        stand.connect().create_session_derived(9, "wrong")
    assert lines(audited) == [
        (0x67, 2, 1, 0xFFFF, 0xFFFF, 0xE7),
        (0x03, 10, 0xFFFF, 1, 0xFFFF, 0x83),
        (0x04, 17, 0xFFFF, 1, 0xFFFF, 0x84),
        (0x5A, 53, 1, 7, 0xFFFF, 0xDA),
        (0x53, 3, 1, 7, 0xFFFF, 0x09),
        (0x42, 57, 1, 8, 0xFFFF, 0xC2),
        (0x43, 2, 1, 8, 0xFFFF, 0xC3),
        (0x40, 0, 1, 0xFFFF, 0xFFFF, 0xC0),
        (0x03, 10, 0xFFFF, 1, 0xFFFF, 0x83),
        (0x03, 10, 0xFFFF, 9, 0xFFFF, 0x0B),
    ]  # the client notices the wrong password by the card's cryptogram and never answers


def test_ticks_are_hundredths_of_a_second_since_power_up(stand: Stand, audited: AuthSession) -> None:
    stand.clock.now += 12.34
    audited.get_pseudo_random(1)
    assert audited.get_log_entries().entries[-1].tick in {1233, 1234}


def test_a_full_log_without_force_keeps_the_newest(audited: AuthSession) -> None:
    for _ in range(100):
        audited.get_pseudo_random(1)
    entries = audited.get_log_entries().entries
    assert len(entries) == CAPACITY
    assert {one.command for one in entries} == {COMMAND.GET_PSEUDO_RANDOM}


def test_a_full_log_with_force_stops_all_but_what_makes_room(stand: Stand, audited: AuthSession) -> None:
    hsm = stand.connect()
    audited.set_force_audit(AUDIT.ON)
    while hsm.get_device_info().log_used < CAPACITY:
        audited.get_pseudo_random(1)
    newest = audited.get_log_entries().entries[-1]
    for act in (audited.list_objects, audited.get_force_audit, lambda: audited.get_pseudo_random(1)):
        with pytest.raises(YubiHsmDeviceError) as caught:
            act()
        assert caught.value.code == ERROR.LOG_FULL
    with pytest.raises(YubiHsmDeviceError) as caught:
        audited.send_secure_cmd(COMMAND.ECHO, b"x")
    assert caught.value.code == ERROR.LOG_FULL
    assert hsm.send_cmd(COMMAND.ECHO, b"x") == b"x"
    with pytest.raises(YubiHsmDeviceError) as caught:
        audited.set_log_index(newest.number + 1)  # no such entry: nothing is discarded, nor is the oldest overwritten
    assert caught.value.code == ERROR.INVALID_DATA
    stand.session().close()
    stand.device.boot()
    boots, logins, entries = audited.get_log_entries()
    assert (boots, logins, entries[-1]) == (1, 2, newest)
    audited.set_log_index(newest.number)
    assert [one.command for one in audited.get_log_entries().entries] == [COMMAND.SET_LOG_INDEX]
    assert len(audited.get_pseudo_random(1)) == 1


def test_reading_the_log_is_never_logged(audited: AuthSession) -> None:
    assert len(audited.get_log_entries().entries) == len(audited.get_log_entries().entries) == 1


@given(st.binary(min_size=32, max_size=32))
def test_the_first_digest_hangs_on_the_seed(seed: bytes) -> None:
    first = next(iter(AuditLog.after_reset(seed)))
    assert first.digest == hashlib.sha256(first.data + seed).digest()[:16]
