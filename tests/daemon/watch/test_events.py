"""The event stream against a list that forgets nothing: every reader has each event once, in order, or is told how many
it missed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openk_daemon.watch.events import ANSWERED, KEPT, TEXT_MOST, WAITERS, BadCursor, Events, Kind
from openk_hsm.pending import Pending, drive


@dataclass
class Reader:
    cursor: str | None = None
    read: list[int] = field(default_factory=list[int])
    missed: int = 0


class Readers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.events = Events()
        self.readers = [Reader(), Reader()]
        self.waiting: list[Pending[None]] = []

    @rule(count=st.sampled_from([1, 2, 100, ANSWERED + 3, KEPT + 5]))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.events.publish(Kind.HEALTH_CHANGED, 1.0, "x")
        assert not self.events.waiting
        self.waiting.clear()

    @rule(one=st.integers(0, 1))
    def read(self, one: int) -> None:
        reader = self.readers[one]
        batch = self.events.since(reader.cursor)
        reader.cursor = batch.cursor
        reader.missed += batch.lost
        reader.read += [event.number for event in batch.events]
        assert len(batch.events) <= ANSWERED
        assert not batch.restarted

    @precondition(lambda self: self.events.last)
    @rule()
    def wait_for_the_next(self) -> None:
        pending = self.events.wait(self.events.cursor, 60.0)
        assert not pending.settled
        self.waiting.append(pending)
        assert self.events.waiting == min(len(self.waiting), WAITERS)

    @rule()
    def nobody_waits_for_what_is_there(self) -> None:
        for reader in self.readers:
            if reader.cursor != self.events.cursor and self.events.last:
                assert self.events.wait(reader.cursor, 60.0).settled

    @invariant()
    def each_event_is_read_or_missed(self) -> None:
        for reader in self.readers:
            assert reader.read == sorted(set(reader.read))
            at = int(reader.cursor.partition(":")[2]) if reader.cursor else 0
            assert len(reader.read) + reader.missed == at
        assert self.events.lost == sum(reader.missed for reader in self.readers)


TestReaders = Readers.TestCase


def test_a_cursor_of_another_run_leads_to_all_that_this_one_kept() -> None:
    events = Events("00000001")
    for _ in range(3):
        events.publish(Kind.SEALED, 1.0, "x" * 2000)
    batch = events.since("00000002:77")
    assert (batch.restarted, batch.lost, [event.number for event in batch.events]) == (True, 0, [1, 2, 3])
    assert batch.cursor == "00000001:3"
    assert {len(event.text) for event in batch.events} == {TEXT_MOST}
    assert events.wait("00000002:3", 60.0).settled, "it is told at once that the daemon has started anew"


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[0-9a-f]{7,9}:-?[0-9]{1,20}", fullmatch=True)))
def test_what_is_no_cursor_is_refused_and_what_is_one_is_not(text: str) -> None:
    events = Events("00000001")
    run, _, number = text.partition(":")
    right = len(run) == 8 and run.isascii() and set(run) <= set("0123456789abcdef") and number.isdecimal() and number.isascii()
    right = right and len(number) <= 15 and str(int(number)) == number and not (run == "00000001" and int(number) > 0)
    if right:
        assert events.since(text).events == []
    else:
        with pytest.raises(BadCursor):
            events.since(text)
        with pytest.raises(BadCursor):
            events.wait(text, 1.0)


def test_whoever_floods_displaces_itself() -> None:
    events = Events()
    quiet = events.wait(events.cursor, 1.0, uid=7)
    flood = [events.wait(events.cursor, 60.0, uid=8) for _ in range(3 * WAITERS)]
    assert not quiet.settled
    assert sum(not pending.settled for pending in flood) == WAITERS - 1


def test_of_too_many_who_wait_the_first_to_end_is_answered_and_all_at_the_stop() -> None:
    events = Events()
    told: list[int] = []
    for place in range(WAITERS + 1):
        drive(_tell(events.wait(events.cursor, 600.0 - place), told, place), lambda *_: None)
    assert told == [WAITERS - 1], "whose time ends first"
    events.expire(time.monotonic() + 600.5 - WAITERS)
    assert told == [WAITERS - 1, WAITERS]
    events.close()
    assert len(told) == WAITERS + 1
    assert events.wait(events.cursor, 60.0).settled


async def _tell(pending: Pending[None], told: list[int], place: int) -> None:
    await pending
    told.append(place)
