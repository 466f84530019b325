"""The audit log of the daemon: every request's record, durable with its writes, under a signed tree."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from openk_daemon.audit.admission import Admission
from openk_daemon.audit.agreement import Disagreement
from openk_daemon.audit.entries import Stamp, tell_writes
from openk_daemon.audit.examination import read_entries
from openk_daemon.audit.merkle import consistency_path, inclusion_path
from openk_daemon.audit.note_key import NoteKey
from openk_daemon.audit.publisher import NotPublished, Publisher
from openk_daemon.audit.recovery import Finding, examine
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, EntryTooLarge, Head, Proof, UnknownEntry
from openk_daemon.audit.tiles import LONGEST_ENTRY, Tiles
from openk_daemon.store.seam import Committed, LocalStore, StoreError, Unit, Write
from openk_hsm.pending import Pending, failed, resolved, settle

WAITING: Final = 1024
"""Heads and proofs that may wait for a signature."""
PATIENCE: Final = 10.0
"""Seconds that the last checkpoint may take at the stop."""
SWEEP_PAUSE: Final = 0.2
"""Seconds of rest after each bundle of 256 entries that is examined in the background."""
NAMED: Final = 16
"""Disagreements that one audit record names; the log of the daemon names all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """`interval`: seconds an entry may wait for a signature. `count`: entries that may wait for one.
    `reserve`: free bytes below which nothing is admitted. `depth`: newest entries examined at the start,
    the others are examined in the background. `unaudited`: kinds of records written without audit records."""

    interval: float = 10.0
    count: int = 4096
    reserve: int = 64 << 20
    depth: int = 16_384
    unaudited: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recovery:
    """What the start found: entries in the log, how many of them a crash had left unsigned, and the records
    of the store that are not what the log says was written. With any of those a daemon should not serve."""

    size: int
    unsigned: int
    disagreements: tuple[Disagreement, ...]


class LogLedger:
    """A Ledger over a LocalStore that runs. `recover` first, then `run` while requests come, then `stop`."""

    def __init__(
        self,
        store: LocalStore,
        folder: str,
        *,
        origin: str,
        key: NoteKey,
        sign: Callable[[bytes], Pending[bytes]],
        rules: Rules | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`folder`: where the tiles are published, made when missing. `origin`: the log's name. `key`: the
        audit key. `sign`: what the HSM answers when it signs with it. `clock`: nanoseconds."""
        self._store = store
        self._tiles = Tiles(folder)
        self._origin = origin
        self._key = key
        self._publisher = Publisher(store, self._tiles, origin, self._key, sign)
        self._rules = rules if rules is not None else Rules()
        self._stamp = Stamp(clock)
        self._admission = Admission(folder, self._rules.reserve, self._record)
        self._finding: Finding | None = None
        self._left = self._rules.count
        self._signed_at = time.monotonic()
        self._wishes: list[Callable[[], None]] = []
        self._wake = trio.Event()
        self._publishing = trio.Lock()

    @property
    def unavailable(self) -> str | None:
        """Why nothing is admitted, for the health report; None while all is well."""
        return self._admission.reason

    @property
    def signed_size(self) -> int:
        """Entries under the newest signature."""
        return self._publisher.checkpoint.size

    @property
    def lag(self) -> float:
        """Seconds since everything was under a signature; 0.0 while it is."""
        return time.monotonic() - self._signed_at if self._store.log_size() > self.signed_size else 0.0

    def govern(self, *, interval: float, count: int, reserve: int) -> None:
        """Other numbers from now on; see Rules."""
        rules = replace(self._rules, interval=interval, count=count, reserve=reserve)
        if rules == self._rules:
            return
        self._rules = rules
        self._admission.reserve = reserve
        self._wake.set()  # an entry may have waited for longer than it now should

    def commit(self, entry: str, writes: Sequence[Write] = ()) -> Pending[Committed]:
        store = self._store
        if self._admission.reason is None and store.failing is not None:
            self._admission.pause(f"the store cannot commit: {store.failing}")
        if self._admission.reason is not None:
            return failed(AuditUnavailable(self._admission.reason))
        if writes:
            entry = tell_writes(entry, writes)
        data = self._stamp.stamp(entry).encode()
        if len(data) > LONGEST_ENTRY:
            return failed(EntryTooLarge(f"an audit record of {len(data)} bytes"))
        self._left -= 1
        if self._left == 0:
            self._wake.set()
        return store.commit(Unit(writes, data))

    def head(self) -> Pending[Head]:
        pending: Pending[Head] = Pending()

        def fulfil() -> None:
            publisher = self._publisher
            if publisher.text:
                pending.resolve(Head(publisher.text, publisher.checkpoint.size, self._store.log_size()))
            else:
                pending.fail(AuditUnavailable("the audit log has no signed head yet"))

        self._wish(self._store.log_size(), fulfil, pending.fail)
        return pending

    def prove(self, index: int, old_size: int | None = None) -> Pending[Proof]:
        size = self._store.log_size()
        if not 0 <= index < size:
            return failed(UnknownEntry(f"the log has {size} entries"))
        if old_size is not None and not 0 <= old_size <= size:
            return failed(UnknownEntry(f"the log never had {old_size} entries: it has {size}"))
        needed = max(index + 1, old_size or 0)
        pending: Pending[Proof] = Pending()

        def fulfil() -> None:
            if self.signed_size < needed:
                pending.fail(AuditUnavailable("the HSM has not signed that far yet"))
                return
            try:
                proof = self._prove(index, old_size)
            except AuditDamaged as damage:
                self._give_up(damage)
                pending.fail(damage)
            else:
                pending.resolve(proof)

        self._wish(needed, fulfil, pending.fail)
        return pending

    def _prove(self, index: int, old_size: int | None) -> Proof:
        size = self.signed_size
        subtree = self._tiles.subtree(size)
        if old_size is None:
            return Proof(index, size, inclusion_path(index, size, subtree), self._publisher.text)
        return Proof(index, size, consistency_path(old_size, size, subtree), self._publisher.text)

    def tail(self, first: int, limit: int) -> Pending[Sequence[str]]:
        try:
            entries = self._store.entries(first, limit).result()
        except StoreError as error:
            return failed(error)
        return resolved([entry.decode() for entry in entries])

    def _wish(self, size: int, fulfil: Callable[[], None], fail: Callable[[Exception], None]) -> None:
        """Run `fulfil` when `size` entries are under a signature, or when that could not be had."""
        if self._publisher.text and self.signed_size >= size:
            fulfil()
        elif len(self._wishes) >= WAITING:
            fail(AuditUnavailable("too many wait for the HSM's signature"))
        else:
            self._wishes.append(fulfil)
            self._wake.set()

    async def recover(self, *, signing: bool = True) -> Recovery:
        """Examine the log against its last checkpoint, sign what a crash left unsigned, with a record that says
        so, and admit requests. The store must be running. Raises AuditDamaged, or AuditUnavailable when HSM
        or disk do not do it: the daemon must not start then. On a disk short of space it starts paused. Without
        `signing` (the daemon is sealed: the HSM is logged out) what is unsigned waits for `run`."""
        size = self._store.log_size()
        finding = await examine(
            self._store, self._tiles, self._origin, self._key, self._rules.depth, self._rules.unaudited
        )
        signed = 0
        if finding is not None:
            self._publisher.resume(finding.text, finding.checkpoint, finding.edge)
            signed = finding.checkpoint.size
        if size:
            self._continue_clock(size - 1)
        found = finding.disagreements if finding is not None else ()
        try:
            if size > signed:
                await self._record({"event": "audit.recovered", "unsigned": size - signed, "first": signed})
            if found:
                await self._tell(found)
            if signing:
                await self._publisher.publish()
        except (StoreError, NotPublished) as error:
            raise AuditUnavailable(str(error)) from error
        self._finding = finding
        self._admission.open()
        await self._admission.look()
        return Recovery(size, size - signed, found)

    def _continue_clock(self, newest: int) -> None:
        try:
            self._stamp.continue_after(read_entries(self._store, newest, 1)[0])
        except ValueError as error:
            raise AuditDamaged(f"entry {newest} of the log is not a record that openk writes") from error

    async def _tell(self, found: Sequence[Disagreement]) -> None:
        for each in found:
            _log.error("a %s of the store does not agree with the log: %s (%s)", each.kind, each.reason, each.id.hex())
        names = ", ".join(f"{each.kind} {each.id.hex()[:64]}: {each.reason}" for each in found[:NAMED])
        await self._record({"event": "audit.disagreement", "records": len(found), "named": names})

    async def _record(self, facts: Mapping[str, str | int]) -> Committed:
        """Write a record of the log's own. Raises StoreError."""
        data = self._stamp.stamp(json.dumps(facts)).encode()

        async def commit() -> Committed:
            return await self._store.commit(Unit((), data))

        return await settle(commit())

    async def run(self) -> None:
        """Sign in time, watch the disk, examine old entries: until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admission.watch)
            nursery.start_soon(self._sweep)
            while True:
                with trio.move_on_after(self._rules.interval):
                    await self._wake.wait()
                self._wake = trio.Event()
                await self._publish()

    async def _publish(self) -> None:
        waiting = len(self._wishes)
        self._left = self._rules.count
        try:
            async with self._publishing:
                began = time.monotonic()
                await self._publisher.publish()
                self._signed_at = began
        except NotPublished as error:
            _log.error("%d entries wait for a signature: %s", self._store.log_size() - self.signed_size, error)
        except AuditDamaged as damage:
            self._give_up(damage)
        ready, self._wishes = self._wishes[:waiting], self._wishes[waiting:]
        for fulfil in ready:
            fulfil()

    async def _sweep(self) -> None:
        """Examine, slowly, the entries which the start left out."""
        if self._finding is None or not self._finding.first:
            return
        try:
            for _ in self._finding.examination.entries_from(0, self._finding.first):
                await trio.sleep(SWEEP_PAUSE)
        except AuditDamaged as damage:
            self._give_up(damage)
        self._finding = None

    def _give_up(self, damage: AuditDamaged) -> None:
        _log.critical("the audit log is damaged: %s", damage)
        self._admission.close(f"the audit log is damaged: {damage}")

    async def stop(self) -> None:
        """Admit nothing more and sign what is there. Call it once `run` has ended, while store and HSM still run."""
        self._admission.close("the daemon is stopping")
        with trio.move_on_after(PATIENCE, shield=True):
            await self._publish()
            await self._publisher.finish()
        wishes, self._wishes = self._wishes, []
        for fulfil in wishes:
            fulfil()
