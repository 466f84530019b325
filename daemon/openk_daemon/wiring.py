"""The composition root: the only place that names concrete classes and joins them.

Order at the start:
    locked memory proves itself ─▶ policies are read ─▶ sockets are bound ─▶ the process confines itself
    (one thread yet) ─▶ store (its commit thread) ─▶ lane ─▶ audit log recovers ─▶ keys recover ─▶ ready
At the stop the same way back: clients drain, the head of the log is signed, store and lane close.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from grp import getgrnam
from importlib.metadata import version
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit
from socket import socket
from typing import Final

import trio

from openk_daemon.audit.ledger import LogLedger, Rules
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable
from openk_daemon.bindings import read_bindings
from openk_daemon.call import Handler, Plain
from openk_daemon.config import Config, ConfigError, Loaded
from openk_daemon.doors.scrape import Scrape
from openk_daemon.footing import map_late_libraries, take_footing
from openk_daemon.handlers.audit import AuditHandlers
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
from openk_daemon.hierarchy.records import UNAUDITED
from openk_daemon.hsms import audit_key_of
from openk_daemon.identity.peer import Identifier
from openk_daemon.intake import intakes
from openk_daemon.keys.keyring import KeyLimits, Keyring
from openk_daemon.lanes import Lanes
from openk_daemon.notices import Notices
from openk_daemon.observe.alerts import Alerts, Rule
from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.health import OK, Finding, Health, State
from openk_daemon.observe.log import Category, Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.observe.standard import (
    LAG_DEGRADED,
    MEMORY_DEGRADED,
    AuditReading,
    Sources,
    check_standard,
    watch_standard,
)
from openk_daemon.pipeline import Pipeline
from openk_daemon.policy.engine import Engine
from openk_daemon.rates import Rates
from openk_daemon.refusal import Refusal
from openk_daemon.seal import Kept, Seal, read_kept, token_record
from openk_daemon.serve import Server, listen, listen_tcp
from openk_daemon.settings import Settings
from openk_daemon.store.seam import StoreError, Write
from openk_daemon.store.sqlite import SqliteStore
from openk_daemon.watch.probe import Probe, Probes
from openk_daemon.watch.surroundings import Disk, PolicyAge, WallClock, newest
from openk_daemon.watch.watching import Parts, Posts, Voices, Watching, rules_of
from openk_hsm.errors import Sealed
from openk_hsm.pending import Pending, settle
from openk_hsm.reactor import Reactor
from openk_hsm.seam import AUDIT_KEY, KeyHandle, KeySpec, Lane, Mechanism, OpCode, Operation, TokenInfo, Wrapped
from openk_hsm.selftest import Finding as CheckFinding
from openk_memory import selftest
from openk_memory.hardening import harden_daemon, tracer
from openk_memory.landlock import Confinement, runtime_paths
from openk_memory.pool import Pool

VERSION: Final = version("openkd")
TICK: Final = 1.0
"""Seconds between two looks at what grows old: cached keys, health."""
PATIENCE: Final = 1.0
"""Seconds at the start before it is told that an HSM is waited for."""
_SOCKET_NAME: Final = "openkd"  # FileDescriptorName= in systemd/openkd.socket
_SIGNATURE: Final = 64


@dataclass(frozen=True, slots=True)
class Ground:
    """What is there before trio runs, and before the process is confined."""

    config: Config
    loaded: Loaded
    log: Log
    manager: ServiceManager
    pool: Pool
    engine: Engine
    listeners: tuple[socket, ...]
    inherited: bool
    scraped: tuple[socket, ...]
    """Where metrics and health are served besides their methods."""
    rules: tuple[Rule, ...]


def prepare(loaded: Loaded, log: Log, manager: ServiceManager) -> Ground:
    """Everything that needs the whole file system, then the confinement. One thread must run. Raises ConfigError,
    Refusal (policies), OSError, LockedMemoryError; each says what to do."""
    config = loaded.config
    take_footing(config, log)
    selftest.run()
    map_late_libraries()
    limits = config.limits
    pool = Pool(limits.locked_memory_bytes, owner_bytes=limits.locked_memory_per_uid_bytes)
    engine = Engine(config.policies, config.administrators, decisions=limits.decisions)
    inherited = manager.sockets(_SOCKET_NAME)
    listeners = inherited or [_bind(config)]
    scraped = doors_of(config)
    rules = alert_rules(config)
    lane_folders = {path.parent for hsm in config.hsm.values() for path in hsm.sockets}
    reach = Confinement(
        read=[*runtime_paths(), config.policies, *loaded.folders],
        write=[config.state, config.socket.path.parent, *lane_folders],
        scope=False,  # the service manager's socket may be an abstract one
    )
    for step in harden_daemon(reach).steps:
        log.debug("hardening", measure=str(step.measure), state=str(step.state), detail=step.detail)
        if step.state != "applied":
            log.warning("hardening.missing", measure=str(step.measure), detail=step.detail)
    return Ground(config, loaded, log, manager, pool, engine, tuple(listeners), bool(inherited), scraped, rules)


def doors_of(config: Config) -> tuple[socket, ...]:
    """The sockets of the metrics door. Raises ConfigError."""
    doors: list[socket] = []
    if config.metrics.socket is not None:
        doors.append(_listen(config.metrics.socket, config.socket.mode, None))
    if config.metrics.listen:
        try:
            doors.append(listen_tcp(config.metrics.listen))
        except OSError as error:
            raise ConfigError([f"metrics.listen: {config.metrics.listen}: {error.strerror or error}"]) from error
    return tuple(doors)


def alert_rules(config: Config) -> tuple[Rule, ...]:
    """Alerts say what health says, at the same limits. Raises ConfigError."""
    health, unsigned = config.health, config.audit.checkpoint_entries
    usual = {
        "audit_unsigned": (LAG_DEGRADED * unsigned, unsigned),
        "disk_low": (health.disk_free_share, min(1.0, 1.5 * health.disk_free_share)),
        "hsm_slow": (health.probe_limit_seconds, health.probe_limit_seconds / 2),
        "clock_step": (health.clock_step_seconds, health.clock_step_seconds / 2),
        "memory_high": (MEMORY_DEGRADED, 0.75 * MEMORY_DEGRADED),
    }
    try:
        return tuple(rules_of(config.alerts, usual))
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def _bind(config: Config) -> socket:
    group = None
    if config.socket.group:
        try:
            group = getgrnam(config.socket.group).gr_gid
        except KeyError:
            raise ConfigError(
                [f"socket.group: there is no group {config.socket.group!r}: create it or name another"]
            ) from None
    return _listen(config.socket.path, config.socket.mode, group)


def _listen(path: Path, mode: int, group: int | None) -> socket:
    try:
        return listen(str(path), mode, group)
    except OSError as error:
        raise ConfigError([f"the socket {path}: {error.strerror}"]) from error


class Daemon:
    """All rooms, joined. `open` yields one that is ready; `stop` drains it."""

    def __init__(
        self, ground: Ground, store: SqliteStore, lanes: Lanes, token: TokenInfo, ledger: LogLedger, kept: Kept
    ) -> None:
        """`token`: the first HSM's. `kept`: what the store says of the seal."""
        config = ground.config
        self.log = ground.log
        self.settings = Settings(ground.loaded, self.log, Rates())
        self.engine = ground.engine
        self.pool = ground.pool
        self.store = store
        self.lanes = lanes
        self.hsms = lanes.hsms
        self.token = token
        self.ledger = ledger
        self.metrics = Metrics()
        self.health = Health()
        self.started = time.monotonic()
        cache = config.cache
        limits = KeyLimits(cached_seconds=cache.key_seconds, cached_uses=cache.key_uses, cached_open=cache.keys)
        self.hierarchy = Hierarchy(lanes.hsms, store, lambda: datetime.now(UTC), data=token.data)
        self.keyring = Keyring(self.hierarchy, self.pool, limits)
        self.keys = KeyHandlers(self.keyring, self.pool)
        self.seal = Seal(lanes, kept, self._wipe)
        self._recovered = False
        self._tracer = 0
        sources = self._sources()
        self.watching = self._watching(ground, sources)
        requests = self.log.child(Category.REQUESTS)
        identifier = Identifier(config.administrators)
        self.server = Server(
            ground.listeners,
            config,
            identifier,
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
        store.after_group = self._after_group
        told = partial(_record, ledger)
        hsm_log = self.log.child(Category.HSM)
        self.notices = Notices(lanes.single, store, self.hierarchy.sealing, self.hierarchy.root, told, hsm_log)
        self.notices.watch(self.metrics, self.health)
        self._watch(sources)

    @property
    def config(self) -> Config:
        """What is in force."""
        return self.settings.config

    def _apply(self, config: Config) -> None:
        self.pipeline.slow_seconds = config.log.slow_seconds
        self.server.apply(config)

    def _handlers(self) -> Mapping[str, Handler]:
        limits = self.config.limits
        told = {"message_bytes": limits.message_bytes, "in_flight": limits.in_flight}
        return {
            **SystemHandlers(VERSION, told, self.health, self.metrics, self._facts).handlers(),
            **WatchHandlers(self.watching.watcher).handlers(),
            **SettingsHandlers(self.settings.shown, self.settings.compared, self.log).handlers(),
            **VaultHandlers(self.hierarchy).handlers(),
            **self.keys.handlers(),
            **SecretHandlers(self.hierarchy, self.pool).handlers(),
            **RandomHandlers(self.hsms.default, self.pool).handlers(),
            **HsmHandlers(self.lanes.devices, self.keyring, self._failed_check).handlers(),
            **SealHandlers(self.seal).handlers(),
            **PolicyHandlers(self.engine, self.keys.describe_resource).handlers(),
            **AuditHandlers(self.ledger, self.token.audit_public).handlers(),
        }

    def _failed_check(self, hsm: str, found: CheckFinding) -> None:
        log = self.log.child(Category.HSM)
        log.error("hsm.selftest.failed", found.error, hsm=hsm, check=found.check, text=found.text)

    def _after_group(self) -> None:
        self.metrics.commit(self.store.last_group, self.store.last_seconds)

    def _facts(self) -> Mapping[str, Plain]:
        lane = self.hsms.default.health()
        return {
            "version": VERSION,
            "uptime_seconds": int(time.monotonic() - self.started),
            "store": "sqlite",
            "hsm": {
                "name": lane.name,
                "state": str(lane.state),
                "backend": self.token.backend,
                "label": self.token.label,
                "model": self.token.model,
                "firmware": self.token.firmware,
                "workers": lane.workers,
                "restarts": lane.restarts,
            },
            "connections": self.server.connections,
            "policies": self.engine.policies,
            "policy_epoch": self.engine.epoch,
            "audit_size": self.store.log_size(),
            "locked_memory": {"kind": str(self.pool.kind), "in_use": self.pool.in_use, "capacity": self.pool.capacity},
        }

    def _sources(self) -> Sources:
        return Sources(
            lanes=self.lanes.readings,
            memory=self.pool.counters,
            audit=lambda: AuditReading(self.store.log_size(), self.ledger.signed_size, self.ledger.unavailable),
            store_queued=lambda: self.store.queued,
            store_fault=lambda: self.store.failing,
            decisions=lambda: self.engine.remembered,
            log_dropped=lambda: self.log.dropped,
            checkpoint_entries=self.config.audit.checkpoint_entries,
            evaluated=lambda: self.engine.evaluated,
        )

    def _watching(self, ground: Ground, sources: Sources) -> Watching:
        config = self.config
        hsm_log = self.log.child(Category.HSM)
        probes = [
            Probe(device, self.lanes.single[device.name], self._handles, hsm_log)
            for device in self.lanes.devices
            if device.name in self.lanes.single
        ]
        disk = Disk(config.state, config.policies, config.health.disk_free_share)
        parts = Parts(
            workers_missing=lambda: self.lanes.missing,
            alarms=lambda: sum(self.notices.alarms.values()),
            sealed=lambda: self.seal.closed,
            connections=lambda: self.server.connections,
            descriptors_limit=getrlimit(RLIMIT_NOFILE)[0],
        )
        return Watching(
            self.metrics,
            self.health,
            sources,
            parts,
            Posts(
                Probes(probes, config.health.probe_seconds, config.health.probe_limit_seconds),
                disk,
                WallClock(config.health.clock_step_seconds),
                PolicyAge(disk, newest(config.policies), config.health.policy_age_days, lambda: self.engine.epoch),
            ),
            Voices(
                Alerts(ground.rules, clear_seconds=config.alerts.clear_seconds),
                self.log.child(Category.LIFECYCLE),
                ground.manager,
            ),
        )

    def _handles(self, recorded: str) -> Callable[[KeySpec, Wrapped], KeyHandle]:
        return lambda spec, source: self.hierarchy.handle(spec, source, recorded)

    def _watch(self, sources: Sources) -> None:
        watch_standard(self.metrics, sources)
        check_standard(self.health, sources)
        self.metrics.watch("rate_limited_total", "Requests beyond a rate limit.", self._limited, Kind.COUNTER)
        rates = self.settings.rates
        self.metrics.watch("rate_buckets", "Callers, vaults, methods whose rate is counted now.", lambda: len(rates))
        self.metrics.watch("sealed", "1 while nothing is served until an operator unseals.", lambda: self.seal.closed)
        self.health.add("workers", self.lanes.finding)
        self.health.add("seal", self._sealed)

    def _limited(self) -> list[tuple[Labels, float]]:
        return [((("limit", name),), count) for name, count in self.settings.rates.refused().items()]

    def _sealed(self) -> Finding:
        if not self.seal.closed:
            return OK
        workers = sum(self.lanes.configured.values())
        out = f"{self.lanes.logged_out} of {workers} HSM workers say that they are logged out"
        return Finding(State.FAILED, f"sealed until an operator unseals (openk unseal); {out}")

    def _wipe(self) -> None:
        """Every key and secret of this process."""
        self.keyring.forget()
        self.server.drop_secrets()

    async def reload(self) -> None:
        """SIGHUP: the configuration, then the policies, each all or nothing; recorded either way."""
        try:
            changed = json.dumps([change.key for change in self.settings.reload()])
        except ConfigError:
            said = '"outcome":"daemon.misconfigured"'
        else:
            said = f'"outcome":"ok","changed":{changed}'
        await settle(_record(self.ledger, f'{{"event":"config.reload","by":"SIGHUP",{said}}}'))
        try:
            epoch = self.engine.reload()
        except Refusal as refusal:
            self.log.error("policy.kept", refusal, details=str(dict(refusal.details)))
            outcome = f'"outcome":"{refusal.code.name}"'
        else:
            self.log.info("policy.reloaded", epoch=epoch, policies=self.engine.policies)
            outcome = f'"outcome":"ok","epoch":{epoch}'
        await settle(_record(self.ledger, f'{{"event":"policy.reload","by":"SIGHUP",{outcome}}}'))

    async def age(self) -> None:
        """Whatever grows old, once a second."""
        while True:
            await trio.sleep(TICK)
            self.keyring.sweep()
            self.settings.rates.sweep()
            self.log.tell_suppressed()
            await self._look_around()
            if not self._recovered and not self.seal.closed:
                await self.recover()

    async def recover(self) -> None:
        """Finish what an interrupted run left on the HSMs; once, and not while they are logged out."""
        self._recovered = True
        recovered = await settle(self.keys.recover())
        if recovered:
            self.log.warning("keys.recovered", objects=recovered)

    async def _look_around(self) -> None:
        """React to signs that somebody is at work here. Raises Traced where the configuration says `exit`."""
        reaction = self.config.hardening.on_tracer
        found = tracer()
        if found != self._tracer:
            self._tracer = found
            if found:
                self.log.critical("tamper.traced", None, tracer=found, reaction=reaction)
                if reaction == "log":
                    await settle(_record(self.ledger, f'{{"event":"tamper.traced","tracer":{found}}}'))
                else:
                    await self.seal_now("tamper.traced", f'"tracer":{found}', durable=reaction == "seal")
                if reaction == "exit":
                    raise Traced(f"process {found} traces openkd, and hardening.on_tracer is exit")
        home = self.hsms.home
        if not self.seal.closed and home in self.lanes.sealed:
            self.log.critical("tamper.worker_sealed", None, hsm=home)
            await self.seal_now("tamper.worker_sealed", f'"hsm":"{home}"')

    async def seal_now(self, event: str, facts: str, *, durable: bool = True) -> None:
        """Close at once, then tell of it. What cannot be written is logged: it is closed all the same. Not `durable`:
        the next start is open."""
        self.seal.close()
        writes = (self.seal.record(closed=True),) if durable else ()
        try:
            await settle(_record(self.ledger, f'{{"event":"{event}",{facts}}}', *writes))
        except (AuditUnavailable, AuditDamaged, StoreError) as error:
            self.log.error("seal.unrecorded", error)
        else:
            if durable:
                self.seal.recorded()

    async def stop(self) -> None:
        self.watching.close()
        cut = await self.server.drain(self.config.limits.drain_seconds)
        if cut:
            self.log.warning("drain.incomplete", connections=cut)


class Traced(Exception):
    """Somebody traces this process, and the configuration says that it ends then."""


async def _record(ledger: LogLedger, entry: str, *writes: Write) -> None:
    await ledger.commit(entry, writes)


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Daemon]:
    """A daemon that serves until the block ends. Raises HsmError, StoreError, AuditDamaged: it did not start."""
    config, log = ground.config, ground.log
    reactor = Reactor()
    store = SqliteStore(str(config.state), queue=config.limits.queue, reactor=reactor)
    try:
        async with trio.open_nursery() as below:
            below.start_soon(reactor.run)
            below.start_soon(store.run)
            kept = await read_kept(store)
            bindings = await read_bindings(store, config.hsm)
            lanes = Lanes(below, config, log.child(Category.HSM), reactor, bindings, sealed=kept.closed)
            token = await _first_token(ground, lanes, kept)
            ledger = _ledger(config, store, lanes.hsms.default, token)
            async with _recovered(ground, store, lanes, token, ledger, kept) as daemon:
                yield daemon
            below.cancel_scope.cancel()
    finally:
        store.close()
        reactor.close()


async def _first_token(ground: Ground, lanes: Lanes, kept: Kept) -> TokenInfo:
    """The first HSM's; what the store knows of it while that is logged out. Raises HsmError."""
    try:
        return await _awaited_token(ground, lanes)
    except Sealed:
        if kept.token is None:
            raise
        ground.log.warning("start.sealed", text="openk is sealed: an operator must unseal it (openk unseal)")
        lanes.expect(kept.token.identity)
        return kept.token


async def _awaited_token(ground: Ground, lanes: Lanes) -> TokenInfo:
    """Whoever looks on while it takes long is told what for. Raises HsmError."""
    with trio.move_on_after(PATIENCE):
        return await lanes.ready()
    home = lanes.hsms.home
    sockets = ", ".join(lanes.sockets(home))
    why = lanes.hsms.default.health().refusal or "nobody listens there"
    ground.log.warning("hsm.awaited", hsm=home, sockets=sockets, why=why, text="no worker serves yet; still waiting")
    ground.manager.status(f"waiting for a worker of the HSM {home}")
    return await lanes.ready()


@asynccontextmanager
async def _recovered(
    ground: Ground, store: SqliteStore, lanes: Lanes, token: TokenInfo, ledger: LogLedger, kept: Kept
) -> AsyncGenerator[Daemon]:
    due = await lanes.due_binding(token)
    sealed = lanes.hsms.home in lanes.sealed
    recovery = await ledger.recover(signing=not sealed)
    if recovery.disagreements:
        for found in recovery.disagreements:
            ground.log.error("store.disagrees", record=str(found))
        raise AuditDamaged(
            f"{len(recovery.disagreements)} records of the store are not what the audit log says was written"
        )
    if recovery.unsigned:
        ground.log.warning("audit.recovered", unsigned=recovery.unsigned, size=recovery.size)
    daemon = Daemon(ground, store, lanes, token, ledger, kept)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.run)
            if due is not None:
                await settle(_record(ledger, '{"event":"store.bound"}', due))
            nursery.start_soon(lanes.bind_others, partial(_record, ledger))
            told = token_record(kept, token)
            if told is not None:
                await settle(_record(ledger, '{"event":"hsm.token"}', told))
            if not sealed:
                await daemon.recover()
            nursery.start_soon(daemon.age)
            nursery.start_soon(daemon.notices.run)
            nursery.start_soon(daemon.server.run)
            nursery.start_soon(daemon.watching.run)
            if ground.scraped:
                nursery.start_soon(Scrape(ground.scraped, daemon.metrics.families, daemon.health.report).run)
            daemon.server.open(daemon.pipeline, lanes.pump)
            yield daemon
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(ground.config.limits.drain_seconds + TICK):
            await settle(daemon.keyring.close())
            daemon.hierarchy.close()
            await ledger.stop()


def _ledger(config: Config, store: SqliteStore, lane: Lane, token: TokenInfo) -> LogLedger:
    """Raises ConfigError when the home HSM cannot sign the log."""
    audit = config.audit

    def sign(message: bytes) -> Pending[bytes]:
        operation = Operation(OpCode.SIGN, _SIGNATURE, AUDIT_KEY, Mechanism.EDDSA, message)
        return lane.submit(operation)  # type: ignore[return-value]  # without `into` the answer is bytes

    rules = Rules(
        audit.checkpoint_seconds, audit.checkpoint_entries, audit.reserve_bytes, unaudited=frozenset(UNAUDITED)
    )
    folder = os.path.join(config.state, "audit")
    return LogLedger(store, folder, origin=audit.origin, public=audit_key_of(token), sign=sign, rules=rules)
