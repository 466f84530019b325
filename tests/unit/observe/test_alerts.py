"""Alerts: raised and cleared once each, with hysteresis in level and in time; nothing flaps."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.observe.alerts import RULES, Alerts, Change, Event, Rule, Severity, changed
from openk_daemon.observe.history import BYTES
from openk_daemon.observe.signals import NAMES

HIGH = Rule("hot", "heat", Severity.PAGE, 10, 5, 3, "it is {value:g} hot")
LOW = Rule("dry", "water", Severity.TICKET, 0.1, 0.2, 0, "{value:.0%} water", below=True)


def feed(alerts: Alerts, *values: float, signal: str = "heat", begin: float = 100.0) -> list[tuple[float, bool]]:
    """A value a second; when what was told."""
    told: list[tuple[float, bool]] = []
    for second, value in enumerate(values):
        told += [(second, event.raised) for event in alerts.feed({signal: value}, begin + second, 7.0)]
    return told


def test_it_is_raised_after_its_time_and_cleared_after_its_own() -> None:
    alerts = Alerts([HIGH], clear_seconds=2)
    told = feed(alerts, 11, 11, 11, 11, 11, 4, 4, 4, 4)
    assert told == [(3, True), (7, False)]
    assert alerts.raised_total == {"hot": 1}


def test_a_peak_shorter_than_its_time_is_not_told() -> None:
    assert feed(Alerts([HIGH]), 11, 11, 11, 9, 11, 11, 11, 9) == []


def test_between_the_two_levels_nothing_changes() -> None:
    alerts = Alerts([HIGH], clear_seconds=0)
    assert feed(alerts, *[11] * 4, *[6, 9, 6, 10, 7] * 20) == [(3, True)]
    assert feed(alerts, 5, begin=300.0) == [(0, False)]


def test_low_is_bad_where_a_rule_says_so() -> None:
    alerts = Alerts([LOW], clear_seconds=1)
    assert feed(alerts, 0.5, 0.11, 0.1, 0.15, 0.2, 0.3, signal="water") == [(2, True), (5, False)]


def test_what_is_not_known_changes_nothing() -> None:
    alerts = Alerts([HIGH], clear_seconds=0)
    feed(alerts, *[11] * 4)
    assert feed(alerts, nan, nan, begin=200.0) == []
    assert alerts.feed({}, 300.0, 7.0) == []
    assert list(alerts.raised()) == ["hot"]
    assert alerts.value("hot") is None


@given(st.lists(st.floats(0, 20), max_size=80), st.floats(0, 5), st.floats(0, 5))
def test_events_alternate_and_are_explained_by_the_values(
    values: list[float], for_seconds: float, clear_seconds: float
) -> None:
    rule = Rule("hot", "heat", Severity.PAGE, 10, 5, for_seconds, "")
    alerts = Alerts([rule], clear_seconds=clear_seconds)
    events: list[tuple[int, Event]] = []
    for second, value in enumerate(values):
        events += [(second, event) for event in alerts.feed({"heat": value}, 1.0 + second, 0.0)]
    assert [event.raised for _, event in events] == [number % 2 == 0 for number in range(len(events))]
    for second, event in events:
        patience = for_seconds if event.raised else clear_seconds
        lasting = values[max(0, second - int(patience)) : second + 1]
        assert all(value >= 10 if event.raised else value <= 5 for value in lasting)


def test_rules_speak_of_signals_that_exist_and_have_names_of_their_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {rule.signal for rule in RULES} <= set(NAMES)
    for rule in RULES:
        assert rule.text.format(value=0.5)


def test_a_rule_is_changed_and_kept_sound() -> None:
    assert changed(HIGH, Change()) == HIGH
    assert (changed(HIGH, Change(raise_at=3)).raise_at, changed(HIGH, Change(raise_at=3)).clear_at) == (3, 3)
    assert changed(LOW, Change(raise_at=0.5)).clear_at == 0.5
    assert changed(HIGH, Change(for_seconds=0)).for_seconds == 0
    with pytest.raises(ValueError, match=r"clear_at 11 lies beyond raise_at 10"):
        changed(HIGH, Change(clear_at=11))
    with pytest.raises(ValueError, match=r"clear_at 0.05 lies beyond"):
        changed(LOW, Change(clear_at=0.05))


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["", "other", "none"])), max_size=60),
    st.sampled_from([0.0, 2.0]),
)
def test_whatever_is_replaced_when_each_is_raised_and_cleared_in_turn(
    course: list[tuple[float, str]], clear_seconds: float
) -> None:
    alerts = Alerts([HIGH], clear_seconds=clear_seconds)
    events: list[Event] = []
    for moment, (value, rules) in enumerate(course):
        if rules:
            fresh = [replace(HIGH, raise_at=5, clear_at=5, for_seconds=1)] if rules == "other" else []
            events += alerts.replace(fresh, clear_seconds, 0.0)
            assert set(alerts.rules) == {rule.name for rule in fresh}
            assert set(alerts.raised()) <= set(alerts.rules)
        events += alerts.feed({HIGH.signal: value}, float(moment), 0.0)
    assert [event.raised for event in events] == [number % 2 == 0 for number in range(len(events))]
    assert bool(alerts.raised()) == (len(events) % 2 == 1)
    assert alerts.raised_total[HIGH.name] == sum(event.raised for event in events)


def test_operations_tell_each_rule_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    for rule in RULES:
        sign = "≤" if rule.below else "≥"
        row = f"| `{rule.name}` | {rule.severity} | `{rule.signal}` | {sign} {rule.raise_at:g} | {rule.clear_at:g} |"
        assert f"{row} {rule.for_seconds:g} s |\n" in page, rule.name
    assert f"keeps {len(NAMES)} signals" in page
    assert f"{len(NAMES) * BYTES / 1e6:.1f} MB of its memory" in page
