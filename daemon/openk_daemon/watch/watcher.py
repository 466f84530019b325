"""The daemon watches itself: once a second a reading, every ten seconds one into the history, and alerts told of.

What an alert does goes to the log and to the event stream (events.py): that is how `openk alerts --follow` runs a hook
program outside of the daemon, which may execute nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from openk_daemon.observe.alerts import Alerts, Event, Rule, Severity
from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.history import STEP, History
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.signals import NAMES, Signals
from openk_daemon.watch import events
from openk_daemon.watch.events import Events

TICK: Final = 1.0


class Watcher:
    """Not for threads. `events`: where alerts are told of, and whatever else happens to the daemon."""

    def __init__(self, signals: Signals, alerts: Alerts, log: Log, stream: Events | None = None) -> None:
        self.events = Events() if stream is None else stream
        self.history = History(NAMES)
        self.alerts = alerts
        self.newest: Mapping[str, float] = {}
        """The last reading, by signal; empty before the first."""
        self.ended_at = 0.0
        """Unix seconds of the history's newest slot; 0.0 before the first."""
        self._signals = signals
        self._log = log
        self._due = 0.0

    def watch(self, metrics: Metrics) -> None:
        """Register the metrics of the alerts."""

        def raised() -> list[tuple[Labels, float]]:
            now, rules = self.alerts.raised(), self.alerts.rules.values()
            return [
                ((("alert", rule.name), ("severity", rule.severity.value)), int(rule.name in now)) for rule in rules
            ]

        def counted() -> list[tuple[Labels, float]]:
            return [((("alert", name),), count) for name, count in self.alerts.raised_total.items()]

        stream = self.events
        metrics.watch("events_total", "Events of the event stream.", lambda: stream.last, Kind.COUNTER)
        metrics.watch("events_lost_total", "Events that readers were too slow for.", lambda: stream.lost, Kind.COUNTER)
        metrics.watch("events_waiting", "Readers that wait for the next event.", lambda: stream.waiting)
        metrics.watch("alert", "1 while openkd raises this alert by itself.", raised)
        metrics.watch("alerts_raised_total", "How often it was raised.", counted, Kind.COUNTER)

    def tick(self, now: float, at: float) -> None:
        """One reading."""
        values = self._signals.take(now)
        values["hsm_restarts_hour"] = self.history.total("hsm_restarts")
        self.newest = values
        if now >= self._due:
            self._due = now + STEP if now - self._due > STEP else self._due + STEP
            self.ended_at = at
            self.history.add(values)
        self._tell_all(self.alerts.feed(values, now, at))
        self.events.expire(now)

    def replace(self, rules: Sequence[Rule], clear_seconds: float, at: float) -> None:
        """Other alerts from now on; see Alerts.replace."""
        self._tell_all(self.alerts.replace(rules, clear_seconds, at))

    def _tell_all(self, changes: Sequence[Event]) -> None:
        """To the log and to the event stream."""
        for change in changes:
            kind = events.Kind.ALERT_RAISED if change.raised else events.Kind.ALERT_CLEARED
            severity = change.severity.value
            self.events.publish(
                kind, change.at, change.text, severity=severity, subject=change.alert, value=change.value
            )
            self._tell(change)

    def _tell(self, event: Event) -> None:
        facts = {"alert": event.alert, "severity": event.severity.value, "value": event.value, "text": event.text}
        if not event.raised:
            self._log.info("alert.cleared", **facts)
        elif event.severity is Severity.PAGE:
            self._log.error("alert.raised", None, **facts)
        else:
            self._log.warning("alert.raised", None, **facts)
