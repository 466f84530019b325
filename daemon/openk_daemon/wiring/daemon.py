"""All rooms of a daemon that serves, joined."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

import trio

from openk_daemon.audit.ledger import LogLedger
from openk_daemon.call import Handler
from openk_daemon.config import Config, ConfigError
from openk_daemon.config_aging import rotation_rules
from openk_daemon.handlers.audit import AuditHandlers
from openk_daemon.handlers.backup import BackupHandlers
from openk_daemon.handlers.hsm import HsmHandlers
from openk_daemon.handlers.keys import KeyHandlers
from openk_daemon.handlers.policy import PolicyHandlers
from openk_daemon.handlers.randomness import RandomHandlers
from openk_daemon.handlers.seal import SealHandlers
from openk_daemon.handlers.secrets import SecretHandlers
from openk_daemon.handlers.settings import SettingsHandlers
from openk_daemon.handlers.system import SystemHandlers
from openk_daemon.handlers.vaults import VaultHandlers
from openk_daemon.handlers.watch import WatchHandlers
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hsms import audit_key_of
from openk_daemon.identity.peer import Identifier
from openk_daemon.intake import intakes
from openk_daemon.keys.keyring import KeyLimits, Keyring
from openk_daemon.keys.parameters import Parameters
from openk_daemon.keys.suites import Protection
from openk_daemon.lanes import Lanes
from openk_daemon.notices import Notices
from openk_daemon.observe.health import Health
from openk_daemon.observe.log import Category
from openk_daemon.observe.metrics import Metrics
from openk_daemon.pipeline import Pipeline
from openk_daemon.rates import Rates
from openk_daemon.refusal import Refusal
from openk_daemon.renewal import Bars, Pace, Renewal
from openk_daemon.seal import Kept, Seal
from openk_daemon.serve import Server
from openk_daemon.settings import Settings
from openk_daemon.store.sqlite import SqliteStore
from openk_daemon.tampering import Tampering, record
from openk_daemon.thresholds import alert_rules
from openk_daemon.watch.events import Kind
from openk_daemon.wiring.backups import Told, keeper_of, rules_of
from openk_daemon.wiring.ground import Ground
from openk_daemon.wiring.readings import VERSION, Readings, Rooms
from openk_hsm.pending import drive, settle
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, TokenInfo, Wrapped
from openk_hsm.selftest import Finding as CheckFinding

TICK: Final = 1.0
"""Seconds between two looks at what grows old: cached keys, health."""


class Daemon:
    """`opening.opened` yields one that is ready; `stop` drains it."""

    def __init__(
        self, ground: Ground, store: SqliteStore, lanes: Lanes, token: TokenInfo, ledger: LogLedger, kept: Kept
    ) -> None:
        """`token`: the first HSM's. `kept`: what the store says of the seal."""
        config = ground.config
        self.log = ground.log
        self.settings = Settings(ground.loaded, self.log, Rates())
        self.engine = ground.engine
        self.pool = ground.pool
        self.lanes = lanes
        self.token = token
        self.ledger = ledger
        self.metrics = Metrics()
        self.health = Health()
        cache = config.cache
        limits = KeyLimits(
            cached_seconds=cache.key_seconds,
            cached_uses=cache.key_uses,
            cached_open=cache.keys,
            gcm_uses=config.crypto.gcm_uses,
        )
        self.hierarchy = Hierarchy(lanes.hsms, store, lambda: datetime.now(UTC), data=token.data)
        self.keyring = Keyring(self.hierarchy, self.pool, limits)
        self.keys = KeyHandlers(self.keyring, self.pool)
        self.secrets = SecretHandlers(self.hierarchy, self.pool)
        self.seal = Seal(lanes, kept, self._wipe)
        self.tampering = Tampering(self.seal, lanes, ledger, self.log, lambda: self.config, ground.tracers)
        self._store = store
        self._recovered = False
        self._clearing = False
        self.keeper = keeper_of(config, ledger, self.log)
        rooms = Rooms(
            self.settings, self.engine, self.pool, store, lanes, ledger, self.seal, self.log, token, self.keeper
        )
        self.readings = Readings(
            rooms,
            lambda: self.server.connections,
            lambda: sum(self.notices.alarms.values()),
            lambda: self.renewal.overdue_total,
        )
        self.watching = self.readings.watching(self.metrics, self.health, ground.manager, self._handles)
        bars = Bars(
            sealed=lambda: self.seal.closed,
            unrecorded=lambda: ledger.unavailable is not None,
            unsteady=self.watching.unsteady,
        )
        crypto = self.log.child(Category.CRYPTO)
        self.renewal = Renewal(self.keys, ledger, self.watching.events, bars, crypto)
        requests = self.log.child(Category.REQUESTS)
        self.server = Server(
            ground.listeners,
            config,
            Identifier(config.administrators),
            intakes(self._handlers(), self.keys.loaded_resource, self.settings.rates),
            self.pool,
            self.metrics,
            requests,
            lanes.reactor,
        )
        self.pipeline = Pipeline(self.engine, ledger, self.keys.describe_resource, requests)
        self.pipeline.staged = self.metrics.staged
        self.settings.start()
        self.settings.on_apply(self._apply)
        store.after_group = lambda: self.metrics.commit(store.last_group, store.last_seconds)
        hsm_log = self.log.child(Category.HSM)
        told = partial(record, ledger)
        self.notices = Notices(lanes.single, store, self.hierarchy.sealing, self.hierarchy.root, told, hsm_log)
        self.notices.watch(self.metrics, self.health)
        self.renewal.watch(self.metrics, self.health)
        self.readings.register(self.metrics, self.health)

    @property
    def config(self) -> Config:
        """What is in force."""
        return self.settings.config

    def _apply(self, config: Config) -> None:
        self.pipeline.slow_seconds = config.log.slow_seconds
        self.server.apply(config)
        audit, cache, crypto = config.audit, config.cache, config.crypto
        algorithms = frozenset(Algorithm(name) for name in crypto.algorithms)
        self.keys.allow(Parameters(algorithms, frozenset(map(Protection, crypto.protections)), crypto.rsa_bits))
        self.ledger.govern(
            interval=audit.checkpoint_seconds, count=audit.checkpoint_entries, reserve=audit.reserve_bytes
        )
        self.keyring.openings.seconds, self.keyring.openings.uses = cache.key_seconds, cache.key_uses
        tuning = config.tuning
        pace = Pace(tuning.rotation_seconds, tuning.rotation_keys, tuning.rotations_per_minute)
        self.secrets.keep(config.retention.secret_versions)
        self._store.keep_changes(config.retention.changes)
        self.renewal.replace(rotation_rules(config.rotation), pace)
        if self.keeper is not None:
            self.keeper.govern(rules_of(config))
        self.watching.apply(config.health, alert_rules(config), config.alerts.clear_seconds)

    def _handlers(self) -> Mapping[str, Handler]:
        limits = self.config.limits
        told = {"message_bytes": limits.message_bytes, "in_flight": limits.in_flight}
        return {
            **SystemHandlers(VERSION, told, self.health, self.metrics, self.readings.facts).handlers(),
            **WatchHandlers(self.watching.watcher, self.watching.events).handlers(),
            **SettingsHandlers(self.settings.shown, self.settings.compared, self.log).handlers(),
            **VaultHandlers(self.hierarchy).handlers(),
            **self.keys.handlers(),
            **self.secrets.handlers(),
            **RandomHandlers(self.lanes.hsms.default, self.pool).handlers(),
            **HsmHandlers(self.lanes.devices, self.keyring, self._failed_check).handlers(),
            **SealHandlers(self.seal, self.tampering.bars).handlers(),
            **PolicyHandlers(self.engine, self.keys.describe_resource).handlers(),
            **BackupHandlers(self.keeper).handlers(),
            **AuditHandlers(self.ledger, audit_key_of(self.token), self.config.audit.origin).handlers(),
        }

    def _failed_check(self, hsm: str, found: CheckFinding) -> None:
        log = self.log.child(Category.HSM)
        log.error("hsm.selftest.failed", found.error, hsm=hsm, check=found.check, text=found.text)

    def _handles(self, recorded: str) -> Callable[[KeySpec, Wrapped], KeyHandle]:
        return lambda spec, source: self.hierarchy.handle(spec, source, recorded)

    def _wipe(self) -> None:
        """Every key and secret of this process."""
        self.keyring.forget()
        self.server.drop_secrets()

    async def reload(self) -> None:
        """SIGHUP: the configuration, then the policies, each all or nothing; recorded either way."""
        try:
            changed = json.dumps([change.key for change in self.settings.reload()])
        except ConfigError as error:
            text = f"{len(error.mistakes)} mistakes in the configuration files: openk config diff"
            self.watching.events.publish(Kind.CONFIG_REFUSED, time.time(), text)
            said = '"outcome":"daemon.misconfigured"'
        else:
            said = f'"outcome":"ok","changed":{changed}'
            self.watching.events.publish(Kind.CONFIG_RELOADED, time.time(), f"changed: {changed}")
        await settle(record(self.ledger, f'{{"event":"config.reload","by":"SIGHUP",{said}}}'))
        try:
            epoch = self.engine.reload()
        except Refusal as refusal:
            self.log.error("policy.kept", refusal, details=str(dict(refusal.details)))
            outcome = f'"outcome":"{refusal.code.name}"'
            self.watching.events.publish(Kind.POLICY_REFUSED, time.time(), f"{refusal.code.name}: see the log")
        else:
            self.log.info("policy.reloaded", epoch=epoch, policies=self.engine.policies)
            outcome = f'"outcome":"ok","epoch":{epoch}'
        await settle(record(self.ledger, f'{{"event":"policy.reload","by":"SIGHUP",{outcome}}}'))

    async def age(self) -> None:
        """Whatever grows old, once a second."""
        while True:
            await trio.sleep(TICK)
            self.keyring.sweep()
            self.settings.rates.sweep()
            self.log.tell_suppressed()
            if not self._recovered and not self.seal.closed:
                await self.recover()
            if self.hierarchy.unfinished and not self._clearing and not self.seal.closed:
                self._clearing = True
                drive(self.keys.clear(), self._cleared)

    def _cleared(self, objects: int | None, error: Exception | None) -> None:
        self._clearing = False
        if objects or error is not None:
            self.log.warning("keys.cleared", error, objects=objects or 0)

    async def recover(self) -> None:
        """Finish what an interrupted run left on the HSMs; once, and not while they are logged out."""
        self._recovered = True
        recovered = await settle(self.keys.recover())
        if recovered:
            self.log.warning("keys.recovered", objects=recovered)

    async def keep_backups(self) -> None:
        """Until cancelled; does nothing where no folder is configured."""
        if self.keeper is not None:
            await self.keeper.run(Told(self.ledger, self.watching.events))

    async def stop(self) -> None:
        self.watching.close()
        if self.keeper is not None:
            self.keeper.close()
        cut = await self.server.drain(self.config.limits.drain_seconds)
        if cut:
            self.log.warning("drain.incomplete", connections=cut)
