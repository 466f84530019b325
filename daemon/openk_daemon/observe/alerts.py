"""When to call somebody: thresholds on signals, raised and cleared with hysteresis in level and in time.

    below raise_at ──(reaches it)──▶ pending ──(for_seconds)──▶ raised
         ▲                             │(back before that)         │
         └─────────────────────────────┘◀──(past clear_at for clear_seconds)

Pure: fed with readings and moments, it answers events. Who logs, counts and passes them on: `watcher`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isnan
from typing import Final


class Severity(StrEnum):
    PAGE = "page"  # clients are refused or will be soon
    TICKET = "ticket"  # look within the day


@dataclass(frozen=True, slots=True)
class Rule:
    """`signal` is of `signals.SIGNALS`. `below`: raised when it falls to `raise_at`, not when it rises to it."""

    name: str
    signal: str
    severity: Severity
    raise_at: float
    clear_at: float
    for_seconds: float
    text: str
    """What is so, and what to do; may hold {value}."""
    below: bool = False

    def __post_init__(self) -> None:
        if (self.clear_at > self.raise_at) if not self.below else (self.clear_at < self.raise_at):
            raise ValueError(f"clear_at {self.clear_at:g} lies beyond raise_at {self.raise_at:g}")

    def reached(self, value: float) -> bool:
        return value <= self.raise_at if self.below else value >= self.raise_at

    def past(self, value: float) -> bool:
        """Well again."""
        if self.clear_at == self.raise_at:
            return not self.reached(value)
        return value >= self.clear_at if self.below else value <= self.clear_at


_P, _T = Severity.PAGE, Severity.TICKET
RULES: Final = (
    Rule("hsm_down", "hsm_down", _P, 1, 0, 10, "{value:g} HSMs do not serve: openk hsm status"),
    Rule("hsm_workers", "hsm_workers_missing", _T, 1, 0, 60, "{value:g} HSM workers are missing: openk hsm status"),
    Rule("hsm_slow", "hsm_probe_seconds", _P, 2, 1, 0, "an HSM's round trip takes {value:.3g} s: openk health"),
    Rule("hsm_restarts", "hsm_restarts_hour", _T, 3, 0, 0, "{value:g} HSM workers were replaced in an hour"),
    Rule("hsm_alarm", "hsm_alarms", _P, 1, 0, 0, "somebody else used a device {value:g} times: openk audit tail"),
    Rule("audit_refusing", "audit_refusing", _P, 1, 0, 2, "nothing is admitted: the audit log cannot be written"),
    Rule("audit_unsigned", "audit_unsigned", _T, 16_384, 4_096, 30, "{value:g} audit entries wait to be signed"),
    Rule("store_failing", "store_failing", _P, 1, 0, 2, "the disk under the store fails or does not answer"),
    Rule("commit_slow", "commit_p99_seconds", _T, 0.25, 0.125, 60, "commits take {value:.3g} s: the disk is slow"),
    Rule("disk_low", "disk_free_share", _T, 0.02, 0.03, 10, "{value:.1%} of the state's disk is free", below=True),
    Rule("memory_high", "locked_memory_share", _T, 0.8, 0.6, 10, "{value:.0%} of the locked memory is in use"),
    Rule("descriptors_high", "descriptors_share", _T, 0.8, 0.7, 10, "{value:.0%} of the file descriptors are in use"),
    Rule("errors", "failed_share", _P, 0.05, 0.01, 30, "{value:.1%} of the requests fail, not by their callers' fault"),
    Rule("internal", "internal_per_second", _T, 0.05, 0, 0, "requests are answered `internal`: see the log"),
    Rule("slow", "request_p99_seconds", _T, 2, 1, 30, "one request in 100 takes longer than {value:.3g} s: openk top"),
    Rule("log_dropped", "log_dropped_per_second", _T, 0.05, 0, 0, "log lines are lost: who reads the journal stalls"),
    Rule("clock_step", "clock_step_seconds", _T, 2, 1, 0, "the wall clock was set by {value:.3g} s"),
    Rule("rotation_overdue", "rotation_overdue", _T, 1, 0, 0, "{value:g} keys are due for rotation: openk key list"),
    Rule("backup_old", "backup_age_seconds", _T, 172_800, 172_800, 0, "the newest backup is {value:.0f} s old"),
    Rule("sealed", "sealed", _P, 1, 0, 0, "openk is sealed: openk unseal"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """What a configuration says of one rule; None: as built in."""

    raise_at: float | None = None
    clear_at: float | None = None
    for_seconds: float | None = None


def changed(rule: Rule, change: Change) -> Rule:
    """Where only `raise_at` was given and lies beyond `clear_at`, that moves with it. Raises ValueError."""
    raise_at = rule.raise_at if change.raise_at is None else change.raise_at
    clear_at = rule.clear_at if change.clear_at is None else change.clear_at
    if change.clear_at is None:
        clear_at = max(clear_at, raise_at) if rule.below else min(clear_at, raise_at)
    for_seconds = rule.for_seconds if change.for_seconds is None else change.for_seconds
    return replace(rule, raise_at=raise_at, clear_at=clear_at, for_seconds=for_seconds)


@dataclass(frozen=True, slots=True)
class Event:
    """`at`: Unix seconds."""

    alert: str
    severity: Severity
    raised: bool
    at: float
    value: float
    text: str


class _State:
    __slots__ = ("event", "since")

    def __init__(self) -> None:
        self.since = 0.0  # when it began to be otherwise than what is told; 0.0: it is as told
        self.event: Event | None = None  # while raised, that


class Alerts:
    """Not for threads."""

    def __init__(self, rules: Sequence[Rule] = RULES, *, clear_seconds: float = 30.0) -> None:
        self._rules = {rule.name: rule for rule in rules}
        self._states = {rule.name: _State() for rule in rules}
        self._clear_seconds = clear_seconds
        self._values: Mapping[str, float] = {}
        self.raised_total: dict[str, int] = dict.fromkeys(self._rules, 0)

    @property
    def rules(self) -> Mapping[str, Rule]:
        return self._rules

    def replace(self, rules: Sequence[Rule], clear_seconds: float, at: float) -> list[Event]:
        """Other rules from now on. What is raised stays so until its new rule finds it well; an alert that has no rule
        any more is cleared: those events. `at`: Unix seconds."""
        gone = self._rules.keys() - {rule.name for rule in rules}
        events = [
            self._turn(self._rules[name], self._states[name], self.value(name) or 0.0, at)
            for name in self._rules
            if name in gone and self._states[name].event is not None
        ]
        self._states = {rule.name: self._states.get(rule.name) or _State() for rule in rules}
        self._rules = {rule.name: rule for rule in rules}
        self._clear_seconds = clear_seconds
        self.raised_total = dict.fromkeys(self._rules, 0) | self.raised_total
        return events

    def raised(self) -> Mapping[str, Event]:
        """Those that are raised now, with the event that told so."""
        return {name: state.event for name, state in self._states.items() if state.event is not None}

    def value(self, alert: str) -> float | None:
        """The newest reading of its signal."""
        value = self._values.get(self._rules[alert].signal)
        return None if value is None or isnan(value) else value

    def feed(self, values: Mapping[str, float], now: float, at: float) -> list[Event]:
        """What changes with this reading. `now`: monotonic seconds, `at`: Unix seconds. A signal that is not known
        changes nothing."""
        self._values = values
        events: list[Event] = []
        for name, rule in self._rules.items():
            value = values.get(rule.signal)
            if value is None or isnan(value):
                continue
            state = self._states[name]
            otherwise = rule.reached(value) if state.event is None else rule.past(value)
            if not otherwise:
                state.since = 0.0
                continue
            state.since = state.since or now
            if now - state.since >= (rule.for_seconds if state.event is None else self._clear_seconds):
                events.append(self._turn(rule, state, value, at))
        return events

    def _turn(self, rule: Rule, state: _State, value: float, at: float) -> Event:
        raised = state.event is None
        text = rule.text.format(value=value) if raised or state.event is None else state.event.text
        event = Event(rule.name, rule.severity, raised, at, value, text)
        state.since = 0.0
        state.event = event if raised else None
        self.raised_total[rule.name] += raised
        return event
