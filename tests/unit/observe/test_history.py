"""History: two rings that forget the oldest, and a week made of what the hour held."""

from __future__ import annotations

import sys
from math import isnan, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon.observe.history import BYTES, HOUR, ROLLED, WEEK, History, _Ring
from openk_daemon.observe.signals import NAMES


@given(st.integers(1, 8), st.lists(st.integers(0, 1000), max_size=30))
def test_a_ring_holds_the_newest_in_order(size: int, values: list[int]) -> None:
    ring = _Ring(size)
    for value in values:
        ring.add(value)
    assert list(ring.values()) == values[-size:]
    assert list(ring.last(3)) == values[-size:][-3:]


@settings(max_examples=20)
@given(st.lists(st.one_of(st.integers(-100, 100), st.just(nan)), min_size=1, max_size=3 * ROLLED))
def test_five_minutes_have_the_mean_the_least_and_the_greatest_of_what_was_known(values: list[float]) -> None:
    history = History(["x"])
    for value in values:
        history.add({"x": value})
    week = history.week("x")
    for slot in range(len(values) // ROLLED):
        known = [value for value in values[slot * ROLLED : (slot + 1) * ROLLED] if not isnan(value)]
        if known:
            assert week.values[slot] == pytest.approx(sum(known) / len(known), abs=1e-4)
            assert (week.lows[slot], week.highs[slot]) == (min(known), max(known))
        else:
            assert isnan(week.values[slot])
    assert len(week.values) == len(values) // ROLLED


def test_what_a_reading_lacks_is_not_known() -> None:
    history = History(["a", "b"])
    history.add({"a": 1})
    assert list(history.hour("a").values) == [1]
    assert isnan(history.hour("b").values[0])
    assert history.total("b") == 0
    with pytest.raises(KeyError):
        history.hour("c")


def test_its_memory_is_bounded_and_known() -> None:
    history = History(["x"])
    for _ in range(HOUR + 1):
        history.add({"x": 1})
    assert len(history.hour("x").values) == HOUR
    track = history._tracks["x"]
    rings = (track.hour, track.means, track.lows, track.highs)
    held = sum(sys.getsizeof(ring._slots) for ring in rings)
    assert BYTES <= held < BYTES + 4 * 128
    assert (HOUR, WEEK) == (3600 / 10, 7 * 24 * 60 / 5)
    assert BYTES * len(NAMES) < 1_000_000
