"""The composition root: the only place that names concrete classes and joins them.

Order at the start:
    locked memory proves itself ─▶ policies are read ─▶ sockets are bound ─▶ the process confines itself
    (one thread yet) ─▶ store (its commit thread) ─▶ lane ─▶ audit log recovers ─▶ keys recover ─▶ ready
At the stop the same way back: clients drain, the head of the log is signed, store and lane close.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from grp import getgrnam
from importlib.metadata import version
from pathlib import Path
from socket import socket
from typing import Final

import trio

from openk_daemon.audit.ledger import LogLedger, Rules
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.call import Handler, Plain
from openk_daemon.config import Config, ConfigError, Hsm
from openk_daemon.doors.scrape import Scrape
from openk_daemon.handlers.audit import AuditHandlers
from openk_daemon.handlers.keys import KeyHandlers
from openk_daemon.handlers.policy import PolicyHandlers
from openk_daemon.handlers.randomness import RandomHandlers
from openk_daemon.handlers.secrets import SecretHandlers
from openk_daemon.handlers.system import SystemHandlers
from openk_daemon.handlers.vaults import VaultHandlers
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.records import UNAUDITED
from openk_daemon.identity.peer import Identifier
from openk_daemon.keys.keyring import KeyLimits, Keyring
from openk_daemon.observe.health import OK, Finding, Health, State
from openk_daemon.observe.log import Category, Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.pipeline import Pipeline
from openk_daemon.policy.engine import Engine
from openk_daemon.refusal import Refusal
from openk_daemon.serve import Server, listen
from openk_daemon.store.seam import Foreign, Write
from openk_daemon.store.sqlite import SqliteStore
from openk_hsm.dialling import Limits as LaneLimits
from openk_hsm.errors import HsmError
from openk_hsm.lane import WorkerLane
from openk_hsm.pending import Pending, settle
from openk_hsm.seam import AUDIT_KEY, LaneState, Mechanism, OpCode, Operation, TokenInfo
from openk_memory import selftest
from openk_memory.hardening import harden_daemon
from openk_memory.landlock import Confinement, runtime_paths
from openk_memory.pool import Pool

VERSION: Final = version("openkd")
TICK: Final = 1.0
"""Seconds between two looks at what grows old: cached keys, health."""
_SOCKET_NAME: Final = "openkd"  # FileDescriptorName= in systemd/openkd.socket
_SIGNATURE: Final = 64
_IDENTITY: Final = "hsm-identity"
"""Kind of the one record that binds a store to its HSM."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What is there before trio runs, and before the process is confined."""

    config: Config
    log: Log
    manager: ServiceManager
    pool: Pool
    engine: Engine
    listeners: tuple[socket, ...]
    inherited: bool
    scraped: socket | None
    """Where metrics are served besides the method, if anywhere."""


def prepare(config: Config, log: Log, manager: ServiceManager) -> Ground:
    """Everything that needs the whole file system, then the confinement. One thread must run. Raises ConfigError,
    Refusal (policies), OSError, LockedMemoryError; each says what to do."""
    if len(config.hsm) != 1:
        raise ConfigError(
            [f"{len(config.hsm)} HSMs are configured: this version of openk works with exactly one [hsm.NAME]"]
        )
    selftest.run()
    limits = config.limits
    pool = Pool(limits.locked_memory_bytes, owner_bytes=limits.locked_memory_per_uid_bytes)
    engine = Engine(config.policies, config.administrators, decisions=limits.decisions)
    inherited = manager.sockets(_SOCKET_NAME)
    listeners = inherited or [_bind(config)]
    scraped = None if config.metrics.socket is None else _listen(config.metrics.socket, config.socket.mode, None)
    lane_folders = {path.parent for hsm in config.hsm.values() for path in hsm.sockets}
    reach = Confinement(
        read=[*runtime_paths(), config.policies],
        write=[config.state, config.socket.path.parent, *lane_folders],
        scope=False,  # the service manager's socket may be an abstract one
    )
    for step in harden_daemon(reach).steps:
        log.debug("hardening", measure=str(step.measure), state=str(step.state), detail=step.detail)
        if step.state != "applied":
            log.warning("hardening.missing", measure=str(step.measure), detail=step.detail)
    return Ground(config, log, manager, pool, engine, tuple(listeners), bool(inherited), scraped)


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
        self, ground: Ground, store: SqliteStore, lane: WorkerLane, token: TokenInfo, ledger: LogLedger
    ) -> None:
        config = self.config = ground.config
        self.log = ground.log
        self.engine = ground.engine
        self.pool = ground.pool
        self.store = store
        self.lane = lane
        self.token = token
        self.ledger = ledger
        self.metrics = Metrics()
        self.health = Health()
        self.started = time.monotonic()
        cache = config.cache
        limits = KeyLimits(cached_seconds=cache.key_seconds, cached_uses=cache.key_uses, cached_open=cache.keys)
        self.hierarchy = Hierarchy(lane, store, lambda: datetime.now(UTC))
        self.keyring = Keyring(self.hierarchy, self.pool, limits)
        self.keys = KeyHandlers(self.keyring, self.pool)
        requests = self.log.child(Category.REQUESTS)
        identifier = Identifier(config.administrators)
        self.server = Server(
            ground.listeners,
            config,
            identifier,
            self._handlers(),
            self.keys.loaded_resource,
            self.pool,
            self.metrics,
            requests,
        )
        self.pipeline = Pipeline(self.engine, ledger, self.keys.describe_resource, requests)
        store.after_group = self._after_group
        self._watch()

    def _handlers(self) -> Mapping[str, Handler]:
        limits = self.config.limits
        told = {"message_bytes": limits.message_bytes, "in_flight": limits.in_flight}
        return {
            **SystemHandlers(VERSION, told, self.health, self.metrics, self._facts).handlers(),
            **VaultHandlers(self.hierarchy).handlers(),
            **self.keys.handlers(),
            **SecretHandlers(self.hierarchy, self.pool).handlers(),
            **RandomHandlers(self.lane, self.pool).handlers(),
            **PolicyHandlers(self.engine, self.keys.describe_resource).handlers(),
            **AuditHandlers(self.ledger, self.token.audit_public).handlers(),
        }

    def _after_group(self) -> None:
        self.metrics.commit(self.store.last_group, self.store.last_seconds)
        self.server.flush()

    def _facts(self) -> Mapping[str, Plain]:
        lane = self.lane.health()
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

    def _watch(self) -> None:
        self.health.add("hsm", self._hsm)
        self.health.add("store", self._store)
        self.health.add("audit", self._audit)
        self.health.add("memory", self._memory)
        metrics, pool, lane = self.metrics, self.pool, self.lane
        metrics.watch("locked_memory_bytes", "Locked memory in use.", lambda: pool.in_use)
        metrics.watch("locked_memory_peak_bytes", "Most locked memory ever in use.", lambda: pool.peak)
        metrics.watch("audit_entries", "Entries in the audit log.", self.store.log_size)
        metrics.watch(
            "audit_unsigned_entries",
            "Entries behind the newest signature.",
            lambda: self.store.log_size() - self.ledger.signed_size,
        )
        metrics.watch("store_queued_units", "Units that wait for a commit.", lambda: self.store.queued)
        metrics.watch("policy_epoch", "Grows with each reload.", lambda: self.engine.epoch)
        metrics.watch("policy_decisions_remembered", "Decisions in the cache.", lambda: self.engine.remembered)
        metrics.watch("hsm_queued_operations", "Operations that wait for a worker.", lambda: lane.health().queued)
        metrics.watch("hsm_in_flight_operations", "Operations given to workers.", lambda: lane.health().in_flight)
        metrics.watch("hsm_workers", "Workers connected.", lambda: lane.health().workers)
        metrics.watch("hsm_worker_restarts", "Workers lost so far.", lambda: lane.health().restarts)

    def _hsm(self) -> Finding:
        health = self.lane.health()
        configured = len(next(iter(self.config.hsm.values())).sockets)
        if health.state is LaneState.UP:
            missing = configured - health.workers
            return Finding(State.DEGRADED, f"{missing} of {configured} workers are missing") if missing else OK
        if health.state is LaneState.LATCHED:
            return Finding(State.FAILED, "the token refused the PIN; it is not tried again: openk-hsm unlatch")
        return Finding(State.FAILED, f"no worker is connected ({health.state})")

    def _store(self) -> Finding:
        failing = self.store.failing
        return OK if failing is None else Finding(State.FAILED, f"the last commit failed: {failing.code}")

    def _audit(self) -> Finding:
        return OK if self.ledger.unavailable is None else Finding(State.FAILED, self.ledger.unavailable)

    def _memory(self) -> Finding:
        used = self.pool.in_use / self.pool.capacity
        return Finding(State.DEGRADED, f"{used:.0%} of the locked memory is in use") if used > 0.9 else OK

    async def reload(self) -> None:
        """SIGHUP: the policies, all or nothing; recorded either way."""
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

    async def stop(self) -> None:
        cut = await self.server.drain(self.config.limits.drain_seconds)
        if cut:
            self.log.warning("drain.incomplete", connections=cut)


async def _record(ledger: LogLedger, entry: str) -> None:
    await ledger.commit(entry)


@asynccontextmanager
async def opened(ground: Ground) -> AsyncGenerator[Daemon]:
    """A daemon that serves until the block ends. Raises HsmError, StoreError, AuditDamaged: it did not start."""
    config, log = ground.config, ground.log
    store = SqliteStore(str(config.state), queue=config.limits.queue)
    try:
        async with trio.open_nursery() as below:
            below.start_soon(store.run)
            name, hsm = next(iter(config.hsm.items()))
            lane = WorkerLane(
                name,
                [str(path) for path in hsm.sockets],
                limits=_lane_limits(config, hsm),
                report=partial(_report, log.child(Category.HSM)),
            )
            below.start_soon(lane.run)
            token = await lane.ready()
            ledger = _ledger(config, store, lane, token)
            async with _recovered(ground, store, lane, token, ledger) as daemon:
                yield daemon
            below.cancel_scope.cancel()
    finally:
        store.close()


@asynccontextmanager
async def _recovered(
    ground: Ground, store: SqliteStore, lane: WorkerLane, token: TokenInfo, ledger: LogLedger
) -> AsyncGenerator[Daemon]:
    recovery = await ledger.recover()
    if recovery.disagreements:
        for found in recovery.disagreements:
            ground.log.error("store.disagrees", record=str(found))
        raise AuditDamaged(
            f"{len(recovery.disagreements)} records of the store are not what the audit log says was written"
        )
    if recovery.unsigned:
        ground.log.warning("audit.recovered", unsigned=recovery.unsigned, size=recovery.size)
    daemon = Daemon(ground, store, lane, token, ledger)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.run)
            await settle(_bind_store(store, ledger, token))
            recovered = await settle(daemon.keys.recover())
            if recovered:
                ground.log.warning("keys.recovered", objects=recovered)
            nursery.start_soon(daemon.age)
            nursery.start_soon(daemon.server.run)
            if ground.scraped is not None:
                nursery.start_soon(Scrape(ground.scraped, daemon.metrics.expose).run)
            daemon.server.open(daemon.pipeline)
            yield daemon
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(ground.config.limits.drain_seconds + TICK):
            await settle(daemon.keyring.close())
            daemon.hierarchy.close()
            await ledger.stop()


async def _bind_store(store: SqliteStore, ledger: LogLedger, token: TokenInfo) -> None:
    """The first start binds the store to the token. Raises Foreign at a later one with another token."""
    bound = await store.read(_IDENTITY, b"")
    if bound is None:
        await ledger.commit('{"event":"store.bound"}', [Write(_IDENTITY, b"", 0, token.identity)])
    elif bound.body != token.identity:
        raise Foreign("this state folder was made with another HSM token: use that token, or another state folder")


def _ledger(config: Config, store: SqliteStore, lane: WorkerLane, token: TokenInfo) -> LogLedger:
    audit = config.audit

    def sign(message: bytes) -> Pending[bytes]:
        operation = Operation(OpCode.SIGN, _SIGNATURE, AUDIT_KEY, Mechanism.EDDSA, message)
        return lane.submit(operation)  # type: ignore[return-value]  # without `into` the answer is bytes

    rules = Rules(
        audit.checkpoint_seconds, audit.checkpoint_entries, audit.reserve_bytes, unaudited=frozenset(UNAUDITED)
    )
    folder = os.path.join(config.state, "audit")
    return LogLedger(store, folder, origin=audit.origin, public=token.audit_public, sign=sign, rules=rules)


def _lane_limits(config: Config, hsm: Hsm) -> LaneLimits:
    return LaneLimits(handoff_bytes=hsm.handoff_bytes, hang=hsm.deadline_seconds, total=config.limits.queue)


def _report(log: Log, event: str, fields: Mapping[str, object]) -> None:
    log.warning(event.replace(" ", "."), None, **fields)


__all__ = ["Daemon", "Ground", "HsmError", "opened", "prepare"]
