"""system.history, system.alerts, system.events: what the daemon has seen of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Final

from openk_daemon.call import Call, Handler, Outcome, Plain
from openk_daemon.observe.history import ROLLED, STEP
from openk_daemon.observe.signals import SIGNALS, Signal
from openk_daemon.refusal import Refusal
from openk_daemon.watch.events import BadCursor, Event, Events
from openk_daemon.watch.watcher import Watcher

MILLION: Final = 1_000_000
WAIT_MOST: Final = 60
"""Seconds that system.events waits for the next event."""


class WatchHandlers:
    def __init__(self, watcher: Watcher, events: Events) -> None:
        self._watcher = watcher
        self._events = events

    def handlers(self) -> Mapping[str, Handler]:
        return {"system.history": self.history, "system.alerts": self.alerts, "system.events": self.events}

    async def history(self, call: Call) -> Outcome:
        watcher = self._watcher
        week = call.arguments.optional_text("span") == "week"
        asked = call.arguments.optional_text("signal")
        signals = [signal for signal in SIGNALS if asked in {None, signal.name}]
        if not signals:
            raise Refusal("request.invalid", f"there is no signal {asked!r}", details={"field": "signal"})
        answer: dict[str, Plain] = {
            "seconds": int(STEP * ROLLED if week else STEP),
            "end": int(watcher.ended_at),
            "signals": [self._course(signal, week=week) for signal in signals],
        }
        return Outcome((answer,))

    def _course(self, signal: Signal, *, week: bool) -> dict[str, Plain]:
        history, newest = self._watcher.history, self._watcher.newest.get(signal.name)
        course = history.week(signal.name) if week else history.hour(signal.name)
        shown: dict[str, Plain] = {
            "signal": signal.name,
            "unit": signal.unit,
            "summary": signal.summary,
            "now": None if newest is None else _millionths([newest])[0],
            "values": _millionths(course.values),
        }
        return shown | ({"lows": _millionths(course.lows), "highs": _millionths(course.highs)} if week else {})

    async def alerts(self, _call: Call) -> Outcome:
        watcher = self._watcher
        raised = watcher.alerts.raised()
        rows: list[Plain] = []
        for rule in watcher.alerts.rules.values():
            event = raised.get(rule.name)
            value = watcher.alerts.value(rule.name)
            row: dict[str, Plain] = {
                "alert": rule.name,
                "severity": rule.severity.value,
                "raised": event is not None,
                "since": None if event is None else int(event.at),
                "signal": rule.signal,
                "value": None if value is None else _millionths([value])[0],
                "raise_at": round(rule.raise_at * MILLION),
                "clear_at": round(rule.clear_at * MILLION),
                "for_seconds": round(rule.for_seconds),
                "text": "" if event is None else event.text,
            }
            rows.append(row)
        return Outcome(({"alerts": rows, "cursor": self._events.cursor},), facts=(("raised", len(raised)),))

    async def events(self, call: Call) -> Outcome:
        after = call.arguments.optional_text("after")
        wait = call.arguments.optional_integer("wait") or 0
        try:
            if wait:
                await self._events.wait(after, min(wait, WAIT_MOST), call.peer.caller.uid)
            batch = self._events.since(after)
        except BadCursor as error:
            raise Refusal("request.invalid", "after is no cursor of this daemon", details={"field": "after"}) from error
        answer: dict[str, Plain] = {
            "events": [_event(event) for event in batch.events],
            "cursor": batch.cursor,
            "lost": batch.lost,
            "restarted": batch.restarted,
        }
        return Outcome((answer,), facts=(("events", len(batch.events)),))


def _event(event: Event) -> dict[str, Plain]:
    return {
        "number": event.number,
        "kind": event.kind.value,
        "at": int(event.at),
        "severity": event.severity,
        "subject": event.subject,
        "value": None if event.value is None else _millionths([event.value])[0],
        "text": event.text,
    }


def _millionths(values: Sequence[float]) -> list[int | None]:
    """The wire has no fractions of its own in answers; nil where nothing is known."""
    return [None if isnan(value) else round(value * MILLION) for value in values]
