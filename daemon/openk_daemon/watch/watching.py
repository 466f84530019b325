"""Joins what watches: probes, surroundings, readings, alerts; and says it when the daemon's health changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from openk_daemon.config_watch import Health as HealthConfig
from openk_daemon.observe.alerts import Alerts, Rule
from openk_daemon.observe.exposition import Kind as MetricKind
from openk_daemon.observe.health import OK, Check, Health, State
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.observe.signals import Signals
from openk_daemon.observe.standard import Sources
from openk_daemon.watch.events import INFO, Kind
from openk_daemon.watch.probe import Probes
from openk_daemon.watch.surroundings import Disk, PolicyAge, WallClock
from openk_daemon.watch.watcher import TICK, Watcher

_RANK: Final = {State.UNKNOWN: 0, State.OK: 0, State.DEGRADED: 1, State.FAILED: 2}
_UP: Final = "up"


@dataclass(frozen=True, slots=True)
class Parts:
    """What is looked at beyond `Sources`; each is called once a second and answers at once."""

    workers_missing: Callable[[], int]
    alarms: Callable[[], int]
    overdue: Callable[[], int]
    """Keys that are due for rotation."""
    sealed: Callable[[], bool]
    connections: Callable[[], int]
    epoch: Callable[[], int]
    """Of the policies in force: grows with each reload."""
    descriptors_limit: int
    backup_age: Callable[[], float]
    """Seconds; nan where none are made."""
    backup: Check


@dataclass(frozen=True, slots=True)
class Posts:
    """From where it is looked."""

    probes: Probes
    disk: Disk
    clock: WallClock
    policies: PolicyAge


@dataclass(frozen=True, slots=True)
class Voices:
    """By what it is told."""

    alerts: Alerts
    log: Log
    manager: ServiceManager


class Watching:
    def __init__(
        self, metrics: Metrics, health: Health, sources: Sources, parts: Parts, posts: Posts, voices: Voices
    ) -> None:
        """Registers metrics and findings. Raises ValueError when a name is taken."""
        self._health = health
        self._sources = sources
        self._parts = parts
        self._probes = posts.probes
        self._disk = posts.disk
        self._clock = posts.clock
        self._policies = posts.policies
        self._log = voices.log
        self._manager = voices.manager
        self._told = ""
        self._sealed = parts.sealed()
        self._epoch = parts.epoch()
        self.watcher = Watcher(Signals(metrics, self._read), voices.alerts, voices.log)
        self.events = self.watcher.events
        self.watcher.watch(metrics)
        self._page = os.sysconf("SC_PAGE_SIZE")
        health.add("hsm-round-trip", posts.probes.finding)
        health.add("disk", posts.disk.finding)
        health.add("clock", posts.clock.finding)
        health.add("policy", posts.policies.finding)
        health.add("backup", parts.backup)
        self._watch(metrics, posts.policies)

    def _watch(self, metrics: Metrics, policies: PolicyAge) -> None:
        probes, disk = self._probes, self._disk
        metrics.watch("hsm_probe_seconds", "Of the last round trip, or since one is not answered.", probes.times)
        metrics.watch("hsm_probe_failures_total", "Round trips that failed.", probes.failures, MetricKind.COUNTER)
        metrics.watch("disk_free_bytes", "Free on the disk that holds the state.", lambda: disk.free_bytes)
        metrics.watch("disk_free_share", "The same, as a share of all.", lambda: disk.free_share)
        metrics.watch("clock_step_seconds", "Largest step of the wall clock in ten minutes.", lambda: self._clock.step)
        metrics.watch("policy_age_seconds", "Since a policy file in force was changed.", lambda: policies.age)
        metrics.watch("health", "0 ok, 1 degraded, 2 failed, by component.", self._ranks)

    def _ranks(self) -> list[tuple[tuple[tuple[str, str], ...], float]]:
        found = self._health.report().components
        return [((("component", name),), _RANK[finding.state]) for name, finding in found.items()]

    def unsteady(self) -> bool:
        """The wall clock was set a short while ago."""
        return self._clock.finding() is not OK

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probes.run)
            nursery.start_soon(self._disk.run)
            while True:
                self.look()
                await trio.sleep(TICK)

    def look(self) -> None:
        """Once a second. What breaks here is told, and stops neither watching nor the daemon."""
        try:
            self._clock.look()
            self.watcher.tick(time.monotonic(), time.time())
            self._say()
            self._notice()
        except Exception as error:  # noqa: BLE001 - whoever only looks on must not bring down whom it looks at
            self._log.error("watch.failed", error)

    def apply(self, health: HealthConfig, rules: Sequence[Rule], clear_seconds: float) -> None:
        """Look and alarm by other numbers from now on."""
        self._probes.every, self._probes.limit = health.probe_seconds, health.probe_limit_seconds
        self._disk.low = health.disk_free_share
        self._clock.limit = health.clock_step_seconds
        self._policies.days = health.policy_age_days
        self.watcher.replace(rules, clear_seconds, time.time())

    def close(self) -> None:
        """The daemon stops: nobody waits for an event any more."""
        self.events.publish(Kind.STOPPING, time.time(), "openkd stops")
        self.events.close()

    def _say(self) -> None:
        """To the log and the service manager, when health is another than it was."""
        report = self._health.report()
        states = " ".join(f"{name}={finding.state}" for name, finding in report.components.items())
        if states == self._told:
            return
        first, self._told = not self._told, states
        sentence = report.sentence()
        self._manager.status(sentence)
        if first and report.status is State.OK:
            return
        write = self._log.info if report.status is State.OK else self._log.warning
        severity = INFO if report.status is State.OK else "ticket"
        self.events.publish(Kind.HEALTH_CHANGED, time.time(), f"{report.status}: {sentence}", severity=severity)
        write("health.changed", status=str(report.status), text=sentence)

    def _notice(self) -> None:
        """To the event stream, when it was sealed or unsealed, or the policies are other ones, however that came."""
        sealed, epoch = self._parts.sealed(), self._parts.epoch()
        if sealed != self._sealed:
            self._sealed = sealed
            kind, text = (Kind.SEALED, "openk is sealed") if sealed else (Kind.UNSEALED, "openk is unsealed")
            self.events.publish(kind, time.time(), text, severity="page" if sealed else INFO)
        if epoch != self._epoch:
            self._epoch = epoch
            self.events.publish(Kind.POLICY_RELOADED, time.time(), "other policies are in force")

    def _read(self) -> Mapping[str, float]:
        sources, parts = self._sources, self._parts
        lanes, memory, audit = sources.lanes(), sources.memory(), sources.audit()
        times = os.times()
        return {
            "hsm_down": sum(lane.state != _UP for lane in lanes),
            "hsm_workers_missing": parts.workers_missing(),
            "hsm_queued": sum(lane.queued for lane in lanes),
            "hsm_probe_seconds": self._probes.slowest,
            "hsm_restarts": sum(lane.restarts for lane in lanes),
            "hsm_alarms": parts.alarms(),
            "rotation_overdue": parts.overdue(),
            "audit_unsigned": audit.size - audit.signed,
            "audit_refusing": audit.refusing is not None,
            "store_queued": sources.store_queued(),
            "store_failing": sources.store_fault() is not None,
            "disk_free_share": self._disk.free_share,
            "disk_free_bytes": self._disk.free_bytes,
            "locked_memory_share": memory.in_use / max(1, memory.capacity),
            "descriptors_share": parts.connections() / max(1, parts.descriptors_limit),
            "connections": parts.connections(),
            "cpu_seconds": times.user + times.system,
            "resident_bytes": self._resident(),
            "log_dropped": sources.log_dropped(),
            "clock_step_seconds": self._clock.step,
            "backup_age_seconds": parts.backup_age(),
            "health": _RANK[self._health.report().status],
            "sealed": parts.sealed(),
        }

    def _resident(self) -> int:
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * self._page
        except (OSError, ValueError, IndexError):
            return 0
