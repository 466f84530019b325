"""From the ground to a daemon that serves, in order, and the same way back."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from openk_daemon.audit.ledger import LogLedger, Rules
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.bindings import read_bindings
from openk_daemon.config import Config
from openk_daemon.doors.scrape import Scrape
from openk_daemon.hierarchy.records import UNAUDITED
from openk_daemon.hsms import audit_key_of
from openk_daemon.lanes import Lanes
from openk_daemon.observe.log import Category
from openk_daemon.seal import Kept, read_kept, token_record
from openk_daemon.store.seam import StoreError
from openk_daemon.store.sqlite import SqliteStore
from openk_daemon.tampering import record
from openk_daemon.wiring.daemon import TICK, Daemon
from openk_daemon.wiring.ground import Ground
from openk_hsm.audit_key import signing
from openk_hsm.errors import HsmError, Sealed
from openk_hsm.pending import Pending, settle
from openk_hsm.reactor import Reactor
from openk_hsm.seam import Lane, TokenInfo

PATIENCE: Final = 1.0
"""Seconds at the start before it is told that an HSM is waited for."""


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
                await settle(record(ledger, '{"event":"store.bound"}', due))
            nursery.start_soon(lanes.bind_others, partial(record, ledger))
            told = token_record(kept, token)
            if told is not None:
                await settle(record(ledger, '{"event":"hsm.token"}', told))
            if not sealed:
                await daemon.recover()
            nursery.start_soon(daemon.age)
            nursery.start_soon(daemon.tampering.run)
            nursery.start_soon(daemon.notices.run)
            nursery.start_soon(daemon.renewal.run)
            nursery.start_soon(daemon.server.run)
            nursery.start_soon(daemon.watching.run)
            nursery.start_soon(daemon.keep_backups)
            if ground.scraped:
                door = Scrape(
                    ground.scraped, daemon.metrics.families, daemon.health.report, ground.log.child(Category.REQUESTS)
                )
                nursery.start_soon(door.run)
            daemon.server.open(daemon.pipeline, lanes.employ)
            yield daemon
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(ground.config.limits.drain_seconds + TICK):
            await ledger.stop()  # first: counts that are not made exact are only larger than they must be
            try:
                await settle(daemon.keyring.close())
            except (HsmError, StoreError) as error:
                ground.log.warning("keys.uncounted", error)
            daemon.hierarchy.close()


def _ledger(config: Config, store: SqliteStore, lane: Lane, token: TokenInfo) -> LogLedger:
    """Raises ConfigError when the home HSM cannot sign the log."""
    audit, key = config.audit, audit_key_of(token)

    def sign(message: bytes) -> Pending[bytes]:
        return lane.submit(signing(key.algorithm, message))  # type: ignore[return-value]  # without `into` the answer is bytes

    rules = Rules(
        audit.checkpoint_seconds, audit.checkpoint_entries, audit.reserve_bytes, unaudited=frozenset(UNAUDITED)
    )
    folder = os.path.join(config.state, "audit")
    return LogLedger(store, folder, origin=audit.origin, key=key, sign=sign, rules=rules)
