"""The daemon watches itself: once a second a reading, every ten seconds one into the history, and alerts told of.

Whoever waits for the next alert (`wait`) gets it at once: that is how `openk alerts --follow` runs a hook program
outside of the daemon, which may execute nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from openk_daemon.observe.alerts import Alerts, Event, Rule, Severity
from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.history import STEP, History
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.signals import NAMES, Signals
from openk_hsm.pending import Pending, resolved

TICK: Final = 1.0
WAITERS: Final = 64
"""Who waits for the next alert, at most; the oldest is answered first when one more comes."""


class Watcher:
    """`run` it while the daemon serves; `close` it before connections drain: nobody may wait for an alert then."""

    def __init__(self, signals: Signals, alerts: Alerts, log: Log) -> None:
        self.history = History(NAMES)
        self.alerts = alerts
        self.newest: Mapping[str, float] = {}
        """The last reading, by signal; empty before the first."""
        self.ended_at = 0.0
        """Unix seconds of the history's newest slot; 0.0 before the first."""
        self._signals = signals
        self._log = log
        self._due = 0.0
        self._closed = False
        self._waiters: list[tuple[float, Pending[None]]] = []

    def watch(self, metrics: Metrics) -> None:
        """Register the metrics of the alerts."""

        def raised() -> list[tuple[Labels, float]]:
            now, rules = self.alerts.raised(), self.alerts.rules.values()
            return [
                ((("alert", rule.name), ("severity", rule.severity.value)), int(rule.name in now)) for rule in rules
            ]

        def counted() -> list[tuple[Labels, float]]:
            return [((("alert", name),), count) for name, count in self.alerts.raised_total.items()]

        metrics.watch("alert", "1 while openkd raises this alert by itself.", raised)
        metrics.watch("alerts_raised_total", "How often it was raised.", counted, Kind.COUNTER)

    async def run(self) -> None:
        while True:
            self.tick(time.monotonic(), time.time())
            await trio.sleep(TICK)

    def tick(self, now: float, at: float) -> None:
        """One reading."""
        values = self._signals.take(now)
        values["hsm_restarts_hour"] = self.history.total("hsm_restarts")
        self.newest = values
        if now >= self._due:
            self._due = now + STEP if now - self._due > STEP else self._due + STEP
            self.ended_at = at
            self.history.add(values)
        if not self._tell_all(self.alerts.feed(values, now, at)) and self._waiters:
            self._answer(sum(until <= now for until, _ in self._waiters))

    def replace(self, rules: Sequence[Rule], clear_seconds: float, at: float) -> None:
        """Other alerts from now on; see Alerts.replace."""
        self._tell_all(self.alerts.replace(rules, clear_seconds, at))

    def wait(self, after: int, seconds: float) -> Pending[None]:
        """Settled when there is an event with a greater number than `after`, or when the time is over."""
        if self._closed or seconds <= 0 or self.alerts.last > after:
            return resolved(None)
        if len(self._waiters) >= WAITERS:
            self._answer(1)
        pending: Pending[None] = Pending()
        self._waiters.append((time.monotonic() + seconds, pending))
        self._waiters.sort(key=_until)
        return pending

    def close(self) -> None:
        """Answer everybody, and let nobody wait any more."""
        self._closed = True
        self._answer(len(self._waiters))

    def _answer(self, count: int) -> None:
        answered, self._waiters = self._waiters[:count], self._waiters[count:]
        for _, pending in answered:
            pending.resolve(None)

    def _tell_all(self, events: Sequence[Event]) -> bool:
        """To the log, and to whoever waits; whether there was any."""
        for event in events:
            self._tell(event)
        if events:
            self._answer(len(self._waiters))
        return bool(events)

    def _tell(self, event: Event) -> None:
        facts = {"alert": event.alert, "severity": event.severity.value, "value": event.value, "text": event.text}
        if not event.raised:
            self._log.info("alert.cleared", **facts)
        elif event.severity is Severity.PAGE:
            self._log.error("alert.raised", None, **facts)
        else:
            self._log.warning("alert.raised", None, **facts)


def _until(waiter: tuple[float, Pending[None]]) -> float:
    return waiter[0]
