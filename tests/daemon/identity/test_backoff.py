"""The brute-force guard as a state machine, against a model that keeps every attempt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openk_daemon.identity.backoff import SHARED, Backoff, Pace, Record

PACE = Pace(free=2, first=1.0, factor=2.0, longest=8.0, forget=20.0, subjects=4)


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    guard = Backoff(PACE)
    now = 0.0
    pauses: list[float] = []
    for _ in range(8):
        pauses.append(guard.wait("ada", now))
        now += pauses[-1]
        assert guard.attempt("ada", now) == 0.0
    assert pauses == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_an_attempt_counts_before_it_has_failed() -> None:
    guard = Backoff(PACE)
    admitted = [guard.attempt("ada", 0.0) for _ in range(50)]
    assert admitted[:2] == [0.0, 0.0]
    assert set(admitted[2:]) == {1.0}


def test_a_refused_attempt_costs_nothing() -> None:
    guard = Backoff(PACE)
    for _ in range(2):
        guard.attempt("ada", 0.0)
    for _ in range(100):
        assert guard.attempt("ada", 0.5) == 0.5
    assert guard.attempt("ada", 1.0) == 0.0


def test_success_and_time_forget() -> None:
    guard = Backoff(PACE)
    for _ in range(2):
        guard.attempt("ada", 0.0)
        guard.attempt("bob", 0.0)
    guard.succeeded("ada")
    assert guard.wait("ada", 0.0) == 0.0
    assert guard.wait("bob", 0.0) == 1.0
    assert guard.wait("bob", 20.5) == 0.0
    assert len(guard) == 0


def test_many_names_share_one_place_and_free_nobody() -> None:
    """A guesser that floods the table with names neither drives others out nor guesses faster."""
    guard = Backoff(PACE)
    for subject in ("ada", "b", "c", "d"):
        for _ in range(2):
            guard.attempt(subject, 0.0)
    admitted = sum(guard.attempt(f"made-up-{number}", 0.0) == 0.0 for number in range(1000))
    assert admitted == PACE.free
    assert guard.wait("ada", 0.0) == 1.0
    guard.succeeded(SHARED)
    assert guard.wait("somebody new", 0.0) == 1.0
    assert len(guard) <= PACE.subjects + 1


def test_it_outlives_a_restart() -> None:
    guard = Backoff(PACE)
    for _ in range(2):
        guard.attempt("ada", 0.0)
    fresh = Backoff(PACE)
    fresh.restore(guard.records())
    assert fresh.attempt("ada", 0.25) == 0.75
    crowded = Backoff(PACE)
    crowded.restore({str(number): Record(9, float(number)) for number in range(10)})
    assert sorted(crowded.records()) == ["6", "7", "8", "9"]


@pytest.mark.parametrize(
    "wrong", [{"free": 0}, {"factor": 0.5}, {"first": 0.0}, {"longest": 0.5}, {"forget": 900.0}, {"subjects": 0}]
)
def test_a_pace_that_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a pace has"):
        Pace(**wrong)  # type: ignore[arg-type]  # each is a number


def test_a_pause_does_not_overflow() -> None:
    assert Pace().pause(10_000) == Pace().longest


class Guessing(RuleBasedStateMachine):
    """Three subjects, so that the table never fills; the model is the list of admitted attempts since a success."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = Backoff(PACE)
        self.now = 0.0
        self.admitted: dict[str, list[float]] = {}

    def expected(self, subject: str) -> float:
        times = self.admitted.get(subject, [])
        if not times or self.now - times[-1] > PACE.forget:
            return 0.0
        return max(0.0, times[-1] + PACE.pause(len(times)) - self.now)

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 8.0, 21.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(subject=st.sampled_from("abc"))
    def attempt(self, subject: str) -> None:
        expected = self.expected(subject)
        assert self.guard.attempt(subject, self.now) == expected
        if expected == 0.0:
            times = self.admitted.get(subject, [])
            if times and self.now - times[-1] > PACE.forget:
                times = []
            self.admitted[subject] = [*times, self.now]

    @rule(subject=st.sampled_from("abc"))
    def succeed(self, subject: str) -> None:
        self.guard.succeeded(subject)
        self.admitted.pop(subject, None)

    @invariant()
    def agrees(self) -> None:
        for subject in "abc":
            assert self.guard.wait(subject, self.now) == self.expected(subject)
        assert len(self.guard) <= PACE.subjects + 1


TestGuessing = Guessing.TestCase


@given(st.integers(1, 5), st.lists(st.floats(0, 0.4), min_size=50, max_size=200))
def test_guesses_within_a_time_are_bounded_however_they_are_timed(free: int, pauses: list[float]) -> None:
    """Pauses double: within T seconds at most free + log2(T) + 2 guesses come through."""
    guard, now, admitted = Backoff(Pace(free=free, first=1.0, factor=2.0, longest=900.0)), 0.0, 0
    for pause in pauses:
        now += pause
        admitted += guard.attempt("x", now) == 0.0
    assert admitted <= free + math.log2(max(1.0, now)) + 2
