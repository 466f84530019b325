"""When a backup is due, who hears of it, and what is said of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from openk_daemon.audit.seam import AuditUnavailable, Head
from openk_daemon.backup import keeper as keeper_module
from openk_daemon.backup.keeper import Keeper, Rules, Status
from openk_daemon.backup.maker import Course, Made, Maker, Order
from openk_daemon.backup.seam import BackupFailed, Reason
from openk_daemon.observe.health import State
from openk_daemon.observe.metrics import Metrics
from openk_daemon.store.copying import SqliteOriginal
from openk_hsm.pending import Pending, failed, resolved
from tests.daemon.backup.states import fill, make, shelf
from tests.daemon.store.answers import answer
from tests.support.logs import Captured

HOURLY = Rules(every=3600, keep=2, old_after=7200, reserve=0)


@dataclass
class Told:
    """What the audit log and the event stream hear."""

    entries: list[dict[str, object]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    error: Exception | None = None

    async def record(self, entry: str) -> None:
        if self.error is not None:
            raise self.error
        self.entries.append(json.loads(entry))

    def publish(self, kind: str, text: str, severity: str) -> None:
        self.events.append((kind, severity))
        assert text


class Steered(Maker):
    """`fails`: raised instead of making one. While `hold` is set it waits."""

    fails: BackupFailed | None = None
    hold = False

    def make(self, order: Order, course: Course) -> Made:
        while self.hold:
            course.go_on()
        if self.fails is not None:
            raise self.fails
        return super().make(order, course)


@dataclass
class Kept:
    keeper: Keeper
    maker: Steered
    told: Told
    logged: Captured

    async def create(self, seconds: float = 20) -> Status:
        return await answer(self.keeper.create(seconds))


@asynccontextmanager
async def keeping(tmp_path: Path, logged: Captured, rules: Rules = HOURLY, head: str = "") -> AsyncGenerator[Kept]:
    """A state and a keeper of its backups. `head`: where the state is there already."""
    text = head or await fill(tmp_path / "state", size=300)
    maker = Steered(shelf(tmp_path), tmp_path / "state", SqliteOriginal(str(tmp_path / "state")))
    keeper = Keeper(maker, rules, lambda: resolved(Head(text, 291, 300)), logged.log, "0.0.0")
    told = Told()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run, told)
        with trio.fail_after(30):
            yield Kept(keeper, maker, told, logged)
        nursery.cancel_scope.cancel()


async def until(kept: Kept, runs: int) -> None:
    """So many have ended."""
    await holds(lambda: kept.keeper.made_total + sum(kept.keeper.failed_total.values()) >= runs)
    await trio.testing.wait_all_tasks_blocked()


async def holds(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread makes it so
        await trio.sleep(0.005)


async def test_the_first_is_due_at_once_and_told_of_everywhere(tmp_path: Path, logged: Captured) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        status = kept.keeper.status()
        (backup,) = status.backups
        line = logged.one("backup.made", level="info", by="schedule", backup=backup.name, entries=300, pruned=0)
        assert line["category"] == "lifecycle"
        assert kept.told.events == [("backup.made", "info")]
        assert kept.told.entries == [
            {"event": "backup.made", "backup": backup.name, "entries": 300, "signed": 291, "bytes": backup.bytes, "by": "schedule"}
        ]  # fmt: skip
        assert kept.keeper.finding().state is State.OK
        assert 0 <= kept.keeper.age() < 60
        assert 3500 < kept.keeper.due_in() <= 3600
        logged.one("backup.same_disk", level="warning")


async def test_the_newest_is_found_again_after_a_restart(tmp_path: Path, logged: Captured) -> None:
    head = await fill(tmp_path / "state", size=300)
    made = make(tmp_path, head, clock=lambda: time.time() - 1800).backup
    async with keeping(tmp_path, logged, head=head) as kept:
        await holds(lambda: bool(kept.keeper.status().backups))
        assert list(kept.keeper.status().backups) == [made]
        assert 1790 < kept.keeper.age() < 1900
        assert kept.keeper.made_total == 0
        assert 1700 < kept.keeper.due_in() < 1801


async def test_one_from_a_future_that_was_does_not_hold_up_the_next(tmp_path: Path, logged: Captured) -> None:
    head = await fill(tmp_path / "state", size=300)
    make(tmp_path, head, clock=lambda: time.time() + 86_400)
    async with keeping(tmp_path, logged, head=head) as kept:
        await until(kept, 1)
        assert kept.keeper.age() < 60
        assert kept.keeper.due_in() > 3500


async def test_who_asks_hears_the_end_and_joins_what_runs(tmp_path: Path, logged: Captured) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.maker.hold = True
        assert (await kept.create(0)).running
        begun = await kept.create(0.01)
        assert (begun.running, begun.run) == (True, 2)
        ended: list[Status] = []

        async def wait() -> None:
            ended.append(await kept.create())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            kept.maker.hold = False
        assert [status.ended.run for status in ended if status.ended is not None] == [2, 2]
        assert kept.keeper.made_total == 2
        assert kept.told.entries[-1]["by"] == "request"


async def test_too_many_who_wait_are_answered_at_once(
    tmp_path: Path, logged: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "WAITERS", 1)
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.maker.hold = True
        first: Pending[Status] = kept.keeper.create(30)
        assert kept.keeper.create(30).settled
        assert not first.settled
        kept.keeper.close()  # the daemon stops
        assert first.result().running
        kept.maker.hold = False


async def test_a_failure_is_told_of_counted_and_tried_again(
    tmp_path: Path, logged: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.maker.fails = BackupFailed(Reason.SPACE, "7 bytes are free")
        status = await kept.create()
        assert status.ended is not None
        assert status.ended.failed is not None
        assert status.ended.failed.reason is Reason.SPACE
        logged.one("backup.failed", level="error", reason="space", text="7 bytes are free", by="request")
        assert kept.told.events[-1] == ("backup.failed", "ticket")
        assert kept.told.entries[-1] == {"event": "backup.failed", "reason": "space", "by": "request"}
        finding = kept.keeper.finding()
        assert finding.state is State.DEGRADED
        assert finding.reason.startswith("the last backup failed (space: 7 bytes are free); the newest is ")
        assert 0 < kept.keeper.due_in() <= keeper_module.AGAIN
        kept.maker.fails = None
        monkeypatch.setattr(keeper_module, "AGAIN", 0.0)
        kept.keeper.govern(HOURLY)
        await until(kept, 3)
        assert kept.keeper.finding().state is State.OK
        metrics = Metrics()
        kept.keeper.watch(metrics)
        text = metrics.expose()
        assert 'openk_backup_failures_total{reason="space"} 1' in text
        assert "openk_backups_made_total 2" in text
        assert "openk_backups 2" in text


async def test_overdue(tmp_path: Path, logged: Captured) -> None:
    head = await fill(tmp_path / "state", size=300)
    make(tmp_path, head, clock=lambda: time.time() - 3 * 3600)
    async with keeping(tmp_path, logged, head=head) as kept:
        kept.maker.hold = True
        await holds(lambda: bool(kept.keeper.status().backups))
        finding = kept.keeper.finding()
        assert (finding.state, finding.reason) == (State.DEGRADED, "backups are overdue: the newest is 3 h old")
        kept.keeper.govern(Rules(3600, 2, 86_400, 0))
        assert kept.keeper.finding().state is State.OK
        kept.maker.hold = False


async def test_a_disk_that_does_not_answer_is_told_of_while_it_does_not(
    tmp_path: Path, logged: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.maker.hold = True
        kept.keeper.create(0)
        await holds(lambda: kept.keeper._running)
        assert kept.keeper.finding().state is State.OK
        monkeypatch.setattr(keeper_module, "STALLED", -1.0)
        finding = kept.keeper.finding()
        assert finding.state is State.DEGRADED
        assert finding.reason.startswith("the disk of the backups has not answered for 0 s; the newest is ")
        kept.maker.hold = False


async def test_without_a_signed_head_there_is_none(tmp_path: Path, logged: Captured) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.keeper._head = lambda: failed(AuditUnavailable("an exercise"))
        status = await kept.create()
        assert status.ended is not None
        assert status.ended.failed is not None
        assert status.ended.failed.reason is Reason.UNSIGNED


async def test_a_log_that_cannot_be_written_takes_nothing_from_a_backup(tmp_path: Path, logged: Captured) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.told.error = AuditUnavailable("an exercise")
        status = await kept.create()
        assert status.ended is not None
        assert status.ended.backup is not None
        logged.one("backup.unrecorded", level="error")


async def test_a_mistake_in_openk_fails_the_backup_and_nothing_else(
    tmp_path: Path, logged: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        monkeypatch.setattr(kept.maker.shelf, "list", lambda: 1 / 0)
        await kept.keeper._look()
        logged.one("backup.unseen", level="warning")
        status = await kept.create()
        assert status.ended is not None
        assert status.ended.failed is not None
        assert status.ended.failed.reason is Reason.INTERNAL
        assert "ZeroDivisionError" in str(logged.one("backup.failed", level="error"))


async def test_a_stop_ends_the_thread(tmp_path: Path, logged: Captured) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        kept.maker.hold = True
        kept.keeper.create(0)
        await holds(lambda: kept.keeper._running)
    assert kept.keeper._course.stopping
    assert threading.active_count() < 20
    assert kept.keeper.made_total == 1


async def test_a_shelf_that_cannot_be_looked_at_is_told_of(tmp_path: Path, logged: Captured) -> None:
    async with keeping(tmp_path, logged) as kept:
        await until(kept, 1)
        for path in sorted((tmp_path / "backups").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "backups").rmdir()
        await kept.keeper._look()
        logged.one("backup.unseen", level="warning")
        assert kept.keeper.status().backups, "what is not known to be gone is not said to be"
