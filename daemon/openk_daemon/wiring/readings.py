"""What operators see of the rooms: the callables that metrics, health, history and `system.info` are made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import nan
from resource import RLIMIT_NOFILE, getrlimit
from typing import Final

from openk_daemon.audit.ledger import LogLedger
from openk_daemon.backup.keeper import Keeper
from openk_daemon.call import Plain
from openk_daemon.config import Config
from openk_daemon.lanes import Lanes
from openk_daemon.observe.alerts import Alerts
from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.health import OK, Finding, Health, State
from openk_daemon.observe.log import Category, Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.observe.standard import AuditReading, Sources, check_standard, watch_standard
from openk_daemon.policy.engine import Engine
from openk_daemon.seal import Seal
from openk_daemon.settings import Settings
from openk_daemon.store.sqlite import SqliteStore
from openk_daemon.thresholds import alert_rules
from openk_daemon.watch.probe import Handles, Probe, Probes
from openk_daemon.watch.surroundings import Disk, PolicyAge, WallClock, newest
from openk_daemon.watch.watching import Parts, Posts, Voices, Watching
from openk_hsm.seam import TokenInfo
from openk_memory.pool import Pool

VERSION: Final = version("openkd")


@dataclass(frozen=True, slots=True)
class Rooms:
    """What is looked at."""

    settings: Settings
    engine: Engine
    pool: Pool
    store: SqliteStore
    lanes: Lanes
    ledger: LogLedger
    seal: Seal
    log: Log
    token: TokenInfo
    """The first HSM's."""
    keeper: Keeper | None
    """None where no backups are made."""


class Readings:
    """Each is taken when it is asked for, on the trio thread, and answers at once."""

    def __init__(
        self, rooms: Rooms, connections: Callable[[], int], alarms: Callable[[], int], overdue: Callable[[], int]
    ) -> None:
        self._rooms = rooms
        self._connections = connections
        self._alarms = alarms
        self._overdue = overdue
        self._started = time.monotonic()
        self.sources = Sources(
            lanes=rooms.lanes.readings,
            memory=rooms.pool.counters,
            audit=self._audit,
            store_queued=lambda: rooms.store.queued,
            store_fault=lambda: rooms.store.failing,
            decisions=lambda: rooms.engine.remembered,
            log_dropped=lambda: rooms.log.dropped,
            checkpoint_entries=lambda: rooms.settings.config.audit.checkpoint_entries,
            evaluated=lambda: rooms.engine.evaluated,
            remembered=lambda: rooms.engine.found,
        )

    def facts(self) -> Mapping[str, Plain]:
        """What system.info answers."""
        rooms = self._rooms
        lane, token, pool = rooms.lanes.hsms.default.health(), rooms.token, rooms.pool
        return {
            "version": VERSION,
            "uptime_seconds": int(time.monotonic() - self._started),
            "store": "sqlite",
            "hsm": {
                "name": lane.name,
                "state": str(lane.state),
                "backend": token.backend,
                "label": token.label,
                "model": token.model,
                "firmware": token.firmware,
                "workers": lane.workers,
                "restarts": lane.restarts,
            },
            "connections": self._connections(),
            "policies": rooms.engine.policies,
            "policy_epoch": rooms.engine.epoch,
            "audit_size": rooms.store.log_size(),
            "locked_memory": {"kind": str(pool.kind), "in_use": pool.in_use, "capacity": pool.capacity},
        }

    def register(self, metrics: Metrics, health: Health) -> None:
        """The metrics and findings that every openkd has. Raises ValueError when a name is taken."""
        rooms = self._rooms
        rates = rooms.settings.rates
        watch_standard(metrics, self.sources)
        check_standard(health, self.sources)
        metrics.watch("rate_limited_total", "Requests beyond a rate limit.", self._limited, Kind.COUNTER)
        metrics.watch("rate_buckets", "Callers, vaults, methods whose rate is counted now.", lambda: len(rates))
        metrics.watch("sealed", "1 while nothing is served until an operator unseals.", lambda: rooms.seal.closed)
        health.add("workers", rooms.lanes.finding)
        health.add("seal", self._sealed)
        if rooms.keeper is not None:
            rooms.keeper.watch(metrics)

    def watching(self, metrics: Metrics, health: Health, manager: ServiceManager, handles: Handles) -> Watching:
        """What looks at all of it on a cadence. Raises ValueError when a name is taken."""
        rooms = self._rooms
        config: Config = rooms.settings.config
        log = rooms.log.child(Category.HSM)
        single = rooms.lanes.single
        probes = [Probe(one, single[one.name], handles, log) for one in rooms.lanes.devices if one.name in single]
        disk = Disk(config.state, config.policies, config.health.disk_free_share)
        parts = Parts(
            workers_missing=lambda: rooms.lanes.missing,
            alarms=self._alarms,
            overdue=self._overdue,
            sealed=lambda: rooms.seal.closed,
            connections=self._connections,
            epoch=lambda: rooms.engine.epoch,
            backup_age=lambda: nan if rooms.keeper is None else rooms.keeper.age(),
            backup=_no_backups if rooms.keeper is None else rooms.keeper.finding,
            descriptors_limit=getrlimit(RLIMIT_NOFILE)[0],
        )
        posts = Posts(
            Probes(probes, config.health.probe_seconds, config.health.probe_limit_seconds),
            disk,
            WallClock(config.health.clock_step_seconds),
            PolicyAge(disk, newest(config.policies), config.health.policy_age_days, lambda: rooms.engine.epoch),
        )
        alerts = Alerts(alert_rules(config), clear_seconds=config.alerts.clear_seconds)
        voices = Voices(alerts, rooms.log.child(Category.LIFECYCLE), manager)
        return Watching(metrics, health, self.sources, parts, posts, voices)

    def _audit(self) -> AuditReading:
        ledger = self._rooms.ledger
        return AuditReading(self._rooms.store.log_size(), ledger.signed_size, ledger.unavailable, ledger.lag)

    def _limited(self) -> list[tuple[Labels, float]]:
        return [((("limit", name),), count) for name, count in self._rooms.settings.rates.refused().items()]

    def _sealed(self) -> Finding:
        if not self._rooms.seal.closed:
            return OK
        lanes = self._rooms.lanes
        out = f"{lanes.logged_out} of {sum(lanes.configured.values())} HSM workers say that they are logged out"
        return Finding(State.FAILED, f"sealed until an operator unseals (openk unseal); {out}")


def _no_backups() -> Finding:
    return Finding(State.UNKNOWN, "no backups are configured (backup.folder), and openkd cannot know of yours")
