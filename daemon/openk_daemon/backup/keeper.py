"""Has a backup made when one is due or asked for, and knows how old the newest is. The work itself is on a thread.

What is on the shelf is looked at now and then on a thread too, for it may be another disk, which may hang: whoever asks
for health, metrics or a list is answered from what was seen last.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Final, Protocol

import trio

from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, Head
from openk_daemon.backup.maker import Course, Made, Maker, Order
from openk_daemon.backup.seam import Backup, BackupFailed, Reason
from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.health import OK, Finding, State
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.store.seam import StoreError
from openk_hsm.pending import Pending, resolved, settle

AGAIN: Final = 300.0
"""Seconds after a failure until it is tried again, where `every` is not sooner."""
LOOK: Final = 30.0
"""Seconds between two looks at the shelf."""
TICK: Final = 0.25
SIGNING: Final = 30.0
"""Seconds that the HSM gets to sign a new head; then the backup takes the last one."""
WAITERS: Final = 64
"""Who waits for one, at most; the next is answered at once."""
STALLED: Final = 30.0
"""Seconds without getting further after which that is told of: a piece takes milliseconds."""
ENDING: Final = 1.0
"""Seconds that the thread gets at a stop: a piece takes milliseconds where the disk answers."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds, and how many stay. `reserve`: free bytes that are the audit log's."""

    every: float
    keep: int
    old_after: float
    reserve: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Of the last run that ended. `at`: Unix seconds. `failed`: why; None: it made `backup`."""

    run: int
    at: int
    seconds: float
    backup: Backup | None
    failed: BackupFailed | None


@dataclass(frozen=True, slots=True)
class Status:
    """`run`: the number of the newest run, 0 for none yet; `step` and `share` of it while it is `running`. `due`: Unix
    seconds of the next."""

    backups: Sequence[Backup]
    run: int
    running: bool
    step: str
    share: float
    ended: Ended | None
    due: int


class Backups(Protocol):
    """What handlers need."""

    def create(self, seconds: float) -> Pending[Status]:
        """Begin one, or join the one that runs: settled when it has ended, or after `seconds`."""
        ...

    def status(self) -> Status: ...


class Tell(Protocol):
    """To whom it is told: the audit log, and the event stream."""

    def record(self, entry: str) -> Awaitable[None]: ...

    def publish(self, kind: str, text: str, severity: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiter:
    until: float
    pending: Pending[Status] = field(default_factory=Pending["Status"])


class Keeper:
    """Not for threads. `run` must be running."""

    def __init__(self, maker: Maker, rules: Rules, head: Callable[[], Pending[Head]], log: Log, version: str) -> None:
        """`head`: the log's newest signed head."""
        self.rules = rules
        self.made_total = 0
        self.failed_total: Counter[str] = Counter()
        self._maker = maker
        self._head = head
        self._log = log
        self._version = version
        self._backups: Sequence[Backup] = ()
        self._started = time.time()
        self._looked = False
        self._course = Course()
        self._runs = 0
        self._running = False
        self._ended: Ended | None = None
        self._asked = False
        self._wake = trio.Event()
        self._waiters: list[_Waiter] = []
        self._limiter = trio.CapacityLimiter(1)
        self._looking = trio.CapacityLimiter(1)

    # --- asked ---

    def create(self, seconds: float) -> Pending[Status]:
        if not self._running and not self._asked:
            self._asked = True
            self._runs += 1
            self._wake.set()
        if seconds <= 0 or len(self._waiters) >= WAITERS:
            return resolved(self.status())
        waiter = _Waiter(time.monotonic() + seconds)
        self._waiters.append(waiter)
        return waiter.pending

    def status(self) -> Status:
        running = self._running or self._asked
        due = int(time.time() + self.due_in())
        return Status(
            self._backups, self._runs, running, self._course.step if self._running else "waiting",
            self._course.share if self._running else 0.0, self._ended, due,
        )  # fmt: skip

    def govern(self, rules: Rules) -> None:
        """By other numbers from now on."""
        self.rules = rules
        self._wake.set()

    def close(self) -> None:
        """The daemon stops: nobody waits any more."""
        self._answer(self._waiters)

    # --- watched ---

    def age(self) -> float:
        """Seconds since the newest was made; of none, since the start; nan until the shelf was looked at."""
        if not self._looked:
            return nan
        newest = self._newest()
        return max(0.0, time.time() - (self._started if newest is None else newest.made))

    def finding(self) -> Finding:
        age = self.age()
        newest = "there is none" if self._newest() is None else f"the newest is {_span(age)} old"
        waited = time.monotonic() - self._course.moved if self._running else 0.0
        if waited > STALLED:
            return Finding(State.DEGRADED, f"the disk of the backups has not answered for {_span(waited)}; {newest}")
        if self._ended is not None and self._ended.failed is not None:
            failed = self._ended.failed
            return Finding(State.DEGRADED, f"the last backup failed ({failed.reason}: {failed.text}); {newest}")
        if age > self.rules.old_after:
            return Finding(State.DEGRADED, f"backups are overdue: {newest}")
        return Finding(State.OK, newest) if self._looked else OK

    def watch(self, metrics: Metrics) -> None:
        """Raises ValueError when a name is taken."""

        def newest(read: Callable[[Backup], float]) -> Callable[[], float]:
            return lambda: 0 if (backup := self._newest()) is None else read(backup)

        def failures() -> list[tuple[Labels, float]]:
            return [((("reason", reason.value),), self.failed_total[reason]) for reason in Reason]

        made = newest(lambda one: one.made)
        metrics.watch("backup_timestamp_seconds", "Unix time of the newest backup; 0: none.", made)
        metrics.watch("backup_bytes", "Size of its store.", newest(lambda one: one.bytes))
        metrics.watch("backup_seconds", "What the last one took that was made since the start.", self._seconds)
        metrics.watch("backups", "Backups that are kept now.", lambda: len(self._backups))
        metrics.watch("backup_running", "1 while one is made.", lambda: self._running)
        metrics.watch("backups_made_total", "Backups made and verified.", lambda: self.made_total, Kind.COUNTER)
        metrics.watch("backup_failures_total", "Backups that failed, by reason.", failures, Kind.COUNTER)

    def _seconds(self) -> float:
        return self._ended.seconds if self._ended is not None and self._ended.failed is None else nan

    def due_in(self) -> float:
        """Seconds until the next by itself."""
        ended = self._ended
        if ended is not None and ended.failed is not None:
            return max(0.0, ended.at + min(AGAIN, self.rules.every) - time.time())
        newest = self._newest()
        return 0.0 if newest is None else max(0.0, newest.made + self.rules.every - time.time())

    def _newest(self) -> Backup | None:
        """None that the clock, which may have been set back, has yet to come to."""
        now = time.time() + 1
        return next((backup for backup in reversed(self._backups) if backup.made <= now), None)

    # --- done ---

    async def run(self, tell: Tell) -> None:
        """Until cancelled."""
        await self._look()
        self._tell_disk()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_on)
            nursery.start_soon(self._answer_late)
            while True:
                if not self._asked:
                    with trio.move_on_after(min(LOOK, self.due_in())):
                        await self._wake.wait()
                self._wake = trio.Event()
                if self._asked or self.due_in() <= 0:
                    await self._make(tell)

    def _tell_disk(self) -> None:
        try:
            shared = self._maker.same_disk()
        except OSError:
            return  # the first backup tells
        if shared:
            text = "the backups lie on the disk of the state, and are lost with it: set backup.folder to another disk"
            self._log.warning("backup.same_disk", None, text=text)

    async def _look_on(self) -> None:
        while True:
            await trio.sleep(LOOK)
            await self._look()

    async def _look(self) -> None:
        """At what is there. What cannot be looked at is as it was: the next backup says what is wrong."""
        made = self.made_total
        try:
            found = await trio.to_thread.run_sync(self._maker.shelf.list, abandon_on_cancel=True, limiter=self._looking)
        except Exception as error:  # noqa: BLE001 - likewise: whoever only looks on must not end the daemon
            self._log.warning("backup.unseen", error)
        else:
            if made == self.made_total:  # else what one that was made meanwhile saw is newer
                self._backups = found
        self._looked = True

    async def _answer_late(self) -> None:
        """Whoever waited for long enough hears how far it is."""
        while True:
            await trio.sleep(TICK)
            now = time.monotonic()
            self._answer([waiter for waiter in self._waiters if waiter.until <= now])

    def _answer(self, answered: Sequence[_Waiter]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter not in answered]
        for waiter in answered:
            waiter.pending.resolve(self.status())

    async def _make(self, tell: Tell) -> None:
        if not self._asked:
            self._runs += 1
        by = "request" if self._asked else "schedule"
        self._asked, self._running = False, True
        self._course = Course()
        began = time.monotonic()
        made: Made | None = None
        failure: BackupFailed | None = None
        try:
            made = await self._work(Order(await self._signed(), self.rules.keep, self.rules.reserve, self._version))
        except BackupFailed as error:
            failure = error
        finally:
            self._running = False
        backup = made.backup if made is not None else None
        told = failure.again() if failure is not None else None
        self._ended = Ended(self._runs, int(time.time()), time.monotonic() - began, backup, told)
        if made is not None:
            await self._tell_made(tell, made, by)
        elif failure is not None:
            await self._tell_failed(tell, failure, by)
        self._answer(self._waiters)

    async def _signed(self) -> str:
        """The newest signed head; one that is older where the HSM does not sign now. Raises BackupFailed."""
        try:
            with trio.fail_after(SIGNING):
                return (await settle(_ask(self._head))).checkpoint
        except (AuditUnavailable, AuditDamaged, trio.TooSlowError) as error:
            raise BackupFailed(Reason.UNSIGNED, "the audit log has no signed head") from error

    async def _work(self, order: Order) -> Made:
        course, ended = self._course, trio.Event()
        token = trio.lowlevel.current_trio_token()

        def work() -> Made:
            try:
                return self._maker.make(order, course)
            finally:
                token.run_sync_soon(ended.set)

        try:
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except BackupFailed:
            raise
        except Exception as error:  # a backup that fails, however it does, must not end the daemon
            raise BackupFailed(Reason.INTERNAL, "a mistake in openk, or no thread can be had: see the log") from error
        finally:
            course.stopping = True
            with trio.CancelScope(shield=True), trio.move_on_after(ENDING):
                await ended.wait()

    async def _tell_made(self, tell: Tell, made: Made, by: str) -> None:
        backup = made.backup
        self.made_total += 1
        self._backups = made.listed
        facts: dict[str, str | int] = {
            "backup": backup.name,
            "entries": backup.entries,
            "signed": backup.signed,
            "bytes": backup.bytes,
            "by": by,
        }
        self._log.info("backup.made", seconds=round(made.seconds, 3), pruned=len(made.gone), **facts)
        if made.trouble is not None:
            self._log.warning("backup.unpruned", made.trouble)
        tell.publish("backup.made", f"{backup.name}: {backup.bytes} bytes, {made.seconds:.1f} s", "info")
        await self._record(tell, {"event": "backup.made", **facts})

    async def _tell_failed(self, tell: Tell, failure: BackupFailed, by: str) -> None:
        self.failed_total[failure.reason] += 1
        self._log.error("backup.failed", failure, reason=str(failure.reason), text=failure.text, by=by)
        tell.publish("backup.failed", f"{failure.reason}: {failure.text}", "ticket")
        await self._record(tell, {"event": "backup.failed", "reason": str(failure.reason), "by": by})

    async def _record(self, tell: Tell, facts: dict[str, str | int]) -> None:
        """What cannot be written now is in the log of the daemon all the same."""
        try:
            await tell.record(json.dumps(facts))
        except (AuditUnavailable, AuditDamaged, StoreError) as error:
            self._log.error("backup.unrecorded", error)


async def _ask(head: Callable[[], Pending[Head]]) -> Head:
    return await head()


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
