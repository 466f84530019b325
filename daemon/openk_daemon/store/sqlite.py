"""The embedded store: one SQLite file, group commit behind the trio loop, reads inline on it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from queue import Empty
from typing import Final, cast

import apsw
import trio

from openk_daemon.store.committer import HANDFUL, Committer, Item
from openk_daemon.store.database import Row, fetch, open_database, translate, unpack_entries
from openk_daemon.store.folder import FolderLock, check_folder, check_restored
from openk_daemon.store.memory import do_nothing
from openk_daemon.store.recent import Recent
from openk_daemon.store.seam import Behind, Change, Committed, Record, StoreError, Unit
from openk_hsm.pending import Pending, failed, resolved
from openk_hsm.reactor import EDGE, READ, Reactor

QUEUE: Final = 4096
DEADLINE: Final = 10.0
RECENT: Final = 8192
"""Entries kept in memory: twice what gathers between two checkpoints of a busy log, about 3 MiB."""
WATCH: Final = 1.0
"""Seconds between two looks at the commit thread."""

_CLOSED: Final = StoreError("the store is closed")
_log = logging.getLogger(__name__)


class SqliteStore:
    """A LocalStore in `folder`. Every method belongs to the trio thread; `run` must be running, for it
    settles what the commit thread has done. Whoever made it closes it.

    `queue`: most units that may wait; the next ones fail with store.unavailable at once.
    `deadline`: seconds one group may take. Beyond, what waits behind it fails, and so do new units until the
    disk answers; the group itself settles when the kernel says what became of it, never by a guess.
    """

    def __init__(
        self, folder: str, *, queue: int = QUEUE, deadline: float = DEADLINE, reactor: Reactor | None = None
    ) -> None:
        """`reactor`: one that runs; otherwise the store runs its own. Raises FolderRefused, Foreign, Damaged, Full:
        each says what to do."""
        check_folder(folder)
        self.folder = folder
        self._lock = FolderLock(folder)
        try:
            check_restored(folder)
            writer, self._reader = open_database(folder)
        except StoreError:
            self._lock.release()
            raise
        self.after_group: Callable[[], None] = do_nothing
        self.groups = 0
        """Groups written or given up since the start."""
        self.last_group = 0
        """Units of the newest group, for metrics: set when `after_group` runs."""
        self.last_seconds = 0.0
        """How long that group took to be durable."""
        self._limit = queue
        self._deadline = deadline
        self._failing: StoreError | None = None
        self._refusal: StoreError | None = None
        self._closed = False
        try:
            size, oldest, newest = self._measure()
            self._size: int = size
        except apsw.Error as error:
            writer.close()
            self._reader.close()
            self._lock.release()
            raise translate(error) from error
        self._committer = Committer(writer, self._size, oldest, newest)
        self._queue = self._committer.queue
        self._own = None if reactor is not None else Reactor()
        self._reactor = reactor or cast(Reactor, self._own)
        self._gathered: list[Item] = []  # in this round of the reactor: they leave together
        self._unsettled = 0
        self._recent = Recent(RECENT)

    def _measure(self) -> tuple[int, int, int]:
        """Entries of the log; sequences of the oldest and of the newest unit in the feed."""
        sizes: list[Row] = fetch(self._reader, "SELECT first + count FROM log ORDER BY first DESC LIMIT 1")
        ((oldest,),) = fetch(self._reader, "SELECT min(sequence) FROM change")
        ((newest,),) = fetch(self._reader, "SELECT max(sequence) FROM change")
        return (sizes[0][0] if sizes else 0), (oldest or 1), (newest or 0)

    @property
    def failing(self) -> StoreError | None:
        return self._failing

    @property
    def queued(self) -> int:
        """Units that are not durable yet."""
        return self._unsettled

    def commit(self, unit: Unit) -> Pending[Committed]:
        if self._refusal is not None:
            return failed(self._refusal.again())
        if self._unsettled >= self._limit:
            return failed(StoreError(f"{self._limit} commits wait for the disk already"))
        pending: Pending[Committed] = Pending()
        gathered = self._gathered
        if not gathered:
            self._reactor.soon(self._hand_over)
        gathered.append((unit, pending))
        self._unsettled += 1
        return pending

    def _hand_over(self) -> None:
        """Wake the commit thread once for a round's units: woken by the first, it would leave the others for the
        next fsync."""
        gathered, self._gathered = self._gathered, []
        for at in range(0, len(gathered), HANDFUL):
            self._queue.put(gathered[at : at + HANDFUL])

    def read(self, kind: str, id_: bytes) -> Pending[Record | None]:
        try:
            rows = fetch(self._reader, "SELECT version, body FROM record WHERE kind = ? AND id = ?", (kind, id_))
        except apsw.Error as error:
            return failed(translate(error))
        return resolved(Record(kind, id_, *rows[0]) if rows else None)

    def query(self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1000) -> Pending[Sequence[Record]]:
        text = "SELECT id, version, body FROM record WHERE kind = ? AND id >= ? AND id > ?"
        bindings: list[str | bytes | int] = [kind, prefix, after]
        if not after:
            text = text.replace("id > ?", "? = x''")  # the empty id is an id too
        end = _next_prefix(prefix)
        if end is not None:
            text += " AND id < ?"
            bindings.append(end)
        try:
            rows = fetch(self._reader, text + " ORDER BY id LIMIT ?", (*bindings, max(limit, 0)))
        except apsw.Error as error:
            return failed(translate(error))
        return resolved([Record(kind, *row) for row in rows])

    def keep_changes(self, units: int) -> None:
        self._committer.kept_changes = units

    def kinds(self) -> Pending[Sequence[str]]:
        found: list[str] = []
        try:
            while rows := fetch(
                self._reader,  # a jump from kind to kind instead of a walk over all records
                "SELECT kind FROM record WHERE kind > ? ORDER BY kind LIMIT 1",
                (found[-1] if found else "",),
            ):
                found.append(rows[0][0])
        except apsw.Error as error:
            return failed(translate(error))
        return resolved(found)

    def changes(self, after: int, limit: int = 1000) -> Pending[Sequence[Change]]:
        columns = "SELECT sequence, kind, id, version, deleted FROM change WHERE sequence"
        try:
            rows = fetch(self._reader, columns + " > ? ORDER BY sequence, part LIMIT ?", (after, max(limit, 0)))
            if rows and len(rows) == limit:  # never half of a unit: a cursor could not come back to the rest
                last = rows[-1][0]
                rows = [row for row in rows if row[0] != last]
                rows += fetch(self._reader, columns + " = ? ORDER BY part", (last,))
        except apsw.Error as error:
            return failed(translate(error))
        if rows and rows[0][0] > after + 1:  # sequences have no gaps of their own
            return failed(Behind(f"the change feed begins with unit {rows[0][0]}"))
        return resolved([_change(row) for row in rows])

    def entries(self, first: int, limit: int = 256) -> Pending[Sequence[bytes]]:
        found = self._recent.read(first, limit)
        try:
            while len(found) < limit and first + len(found) < self._size:
                at = first + len(found)
                rows = fetch(
                    self._reader,
                    "SELECT first, count, data FROM log WHERE first <= ? ORDER BY first DESC LIMIT 1",
                    (at,),
                )
                if not rows or rows[0][0] + rows[0][1] <= at:
                    raise StoreError(f"entry {at} of the log is missing")
                start, count, data = rows[0]
                found += unpack_entries(count, data, at - start, at - start + limit - len(found))
        except apsw.Error as error:
            return failed(translate(error))
        except StoreError as error:
            return failed(error)
        return resolved(found)

    def log_size(self) -> int:
        return self._size

    async def run(self) -> None:
        """Settle groups as they are done, until cancelled."""
        if self._closed:
            return
        bell = self._committer.bell
        self._reactor.watch(bell, self._settle_groups, READ | EDGE)
        try:
            async with trio.open_nursery() as nursery:
                if self._own is not None:
                    nursery.start_soon(self._own.run)
                await self._watch()
        finally:
            self._reactor.forget(bell)

    async def _watch(self) -> None:
        """Fail what waits behind a disk that does not answer, rather than let it wait for ever."""
        while True:
            await trio.sleep(min(WATCH, self._deadline / 4))
            since = self._committer.busy_since
            if since and time.monotonic() - since > self._deadline:
                self._refuse_queued(StoreError(f"the disk has not answered for {self._deadline:g} seconds"))

    def _refuse_queued(self, refusal: StoreError) -> None:
        if self._refusal is None:
            _log.error("commits are refused: %s", refusal)
            self._refusal = self._failing = refusal
        gathered, self._gathered = self._gathered, []
        with suppress(Empty):  # the commit thread may empty it at the same time
            while True:
                gathered += self._queue.get_nowait() or ()
        self._unsettled -= len(gathered)
        for _, pending in gathered:
            pending.fail(refusal.again())

    def _settle_groups(self, _event: int = 0) -> None:
        done = self._committer.done
        while done:
            group = done.popleft()
            self.groups += 1
            self._unsettled -= len(group.items)
            self.last_group = len(group.items)
            self.last_seconds = group.seconds
            self._size = group.log_size
            self._recent.add(group.log_size - len(group.entries), group.entries)
            self._failing = group.fault
            self._refusal = _CLOSED if self._closed else None
            for (_, pending), result in zip(group.items, group.results, strict=True):
                try:
                    if isinstance(result, Committed):
                        pending.resolve(result)
                    else:
                        pending.fail(result)
                except Exception:  # noqa: BLE001 - other people's code: the units behind it must settle
                    _log.exception("whoever waited for a commit failed; the commit stands")
            try:
                self.after_group()
            except Exception:  # noqa: BLE001 - other people's code: the units behind it must settle
                _log.exception("the hook after a group failed")

    def close(self) -> None:
        """Commit what is queued (waiting for the disk, at most the deadline), settle it, let go of the folder."""
        if self._closed:
            return
        self._closed = True
        self._refusal = _CLOSED
        self._hand_over()
        self._reactor.forget(self._committer.bell)
        if self._own is not None:
            self._own.close()
        self._queue.put(None)
        self._committer.join(self._deadline)
        self._settle_groups()
        self._reader.close()
        self._lock.release()


def _change(row: Row) -> Change:
    sequence, kind, id_, version, deleted = row
    return Change(sequence, kind, id_, version, bool(deleted))


def _next_prefix(prefix: bytes) -> bytes | None:
    """The first byte string behind all that begin with `prefix`; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


@asynccontextmanager
async def open_store(folder: str, *, queue: int = QUEUE, deadline: float = DEADLINE) -> AsyncGenerator[SqliteStore]:
    """A running SqliteStore; what is queued at the end is committed before it is closed."""
    store = SqliteStore(folder, queue=queue, deadline=deadline)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()
    finally:
        store.close()
