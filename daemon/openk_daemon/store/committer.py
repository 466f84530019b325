"""The one thread that writes: it takes every unit that waits and makes them durable with one fsync.

    trio thread                          commit thread
    ───────────                          ─────────────
    commit(unit) ──▶ queue ────────────▶ take all, check versions, write, one row for all entries, COMMIT
    settle all   ◀── eventfd ◀── done ◀──┘         then shorten the change feed, and checkpoint, where there is enough

A group without writes is one INSERT outside any explicit transaction: one call into SQLite, during which
the interpreter lock is free, so that the thread waits for it once and not once per statement.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

import apsw

from openk_daemon.store.database import PAGE, Connection, fetch, pack_entries, translate
from openk_daemon.store.feed import KEPT, next_oldest
from openk_daemon.store.seam import Committed, Conflict, StoreError, Unit, Write
from openk_hsm.pending import Pending

Item = tuple[Unit, Pending[Committed]]
Result = Committed | StoreError

LARGEST_GROUP: Final = 1024
HANDFUL: Final = 256
"""Units handed over at once, at most: how far a group may go beyond what it had."""
CHECKPOINT_PAGES: Final = 900
"""About how many pages gather in the write-ahead log before they are moved: LOG_AHEAD holds 1000."""

_log = logging.getLogger(__name__)


class Group(NamedTuple):
    """What became of a group: a result for each item; `fault` when the group as a whole could not be written;
    `entries` are the log's newest, up to `log_size`; `seconds` it took."""

    items: list[Item]
    results: list[Result]
    entries: list[bytes]
    log_size: int
    fault: StoreError | None
    seconds: float


class Committer:
    """Owns the writing connection. `queue` takes handfuls of items, None ends the thread; `done` gives groups back, and
    `bell` (an eventfd that nobody need read) is written to for each."""

    def __init__(self, writer: Connection, log_size: int, oldest: int, sequence: int) -> None:
        """`oldest`, `sequence`: of the first and the last unit in the change feed."""
        self.queue: SimpleQueue[list[Item] | None] = SimpleQueue()
        self.done: deque[Group] = deque()
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.busy_since = 0.0
        """time.monotonic() at the start of the group being written; 0 while there is none."""
        self._writer = writer
        self._log_size = log_size
        self.kept_changes = KEPT
        """Set by the trio thread at any time."""
        self._oldest = oldest
        self._sequence = sequence
        self._pages = CHECKPOINT_PAGES
        self._thread = threading.Thread(target=self._run, name="openk-store-commit", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end after None was queued, at most so long; then close what the thread used. A thread
        that hangs in the kernel keeps it: the process is about to end, and SQLite recovers at the next start."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            _log.error("the disk did not answer for %g seconds: leaving without it", seconds)
        else:
            self._checkpoint()  # so that the database file alone is whole
            self._writer.close()
            os.close(self.bell)

    def _run(self) -> None:
        while True:
            handful = self.queue.get()
            if handful is None:
                return
            self.busy_since = time.monotonic()
            ended = self._take_waiting(handful)
            self.done.append(self._write_group(handful))
            os.eventfd_write(self.bell, 1)
            self._forget_changes()
            if self._pages >= CHECKPOINT_PAGES:
                self._checkpoint()
            self.busy_since = 0.0
            if ended:
                return

    def _take_waiting(self, items: list[Item]) -> bool:
        """True when the end was among what waited. The trio side may empty the queue at the same time."""
        queue = self.queue
        while len(items) <= LARGEST_GROUP - HANDFUL and not queue.empty():
            try:
                handful = queue.get_nowait()
            except Empty:
                return False
            if handful is None:
                return True
            items += handful
        return False

    def _write_group(self, items: list[Item]) -> Group:
        try:
            if any(unit.writes for unit, _ in items):
                results, entries = self._write_in_transaction(items)
            else:
                results, entries = self._write_entries(items)
        except apsw.Error as error:
            return self._give_up(items, translate(error), error)
        except Exception as error:  # noqa: BLE001 - this thread is the only one that writes: it must not end
            return self._give_up(items, StoreError(f"a mistake in the store: {type(error).__name__}"), error)
        return Group(items, results, entries, self._log_size, None, time.monotonic() - self.busy_since)

    def _give_up(self, items: list[Item], fault: StoreError, cause: Exception) -> Group:
        fault.__cause__ = cause
        _log.error("a group of %d commits was not written: %s", len(items), fault)
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except apsw.Error as error:
                _log.error("it could not be rolled back either: %s", error)
        self._pages = CHECKPOINT_PAGES  # moving pages out of the write-ahead log may make room
        failed: list[Result] = [fault.again() for _ in items]
        return Group(items, failed, [], self._log_size, fault, time.monotonic() - self.busy_since)

    def _write_entries(self, items: list[Item]) -> tuple[list[Result], list[bytes]]:
        """The short way, for units that change nothing."""
        entries = [unit.entry for unit, _ in items if unit.entry is not None]
        first = self._log_size
        self._insert_entries(first, entries)
        self._log_size = first + len(entries)
        sequence = self._sequence
        if len(entries) == len(items):
            return [Committed(index, sequence) for index in range(first, self._log_size)], entries
        return self._number(items, [True] * len(items), first, [sequence] * len(items)), entries

    def _write_in_transaction(self, items: list[Item]) -> tuple[list[Result], list[bytes]]:
        writer = self._writer
        sequence = self._sequence
        accepted: list[bool] = []
        sequences: list[int] = []
        writer.execute("BEGIN IMMEDIATE")
        for unit, _ in items:
            fits = self._apply(unit, sequence + 1)
            if fits and unit.writes:
                sequence += 1
            accepted.append(fits)
            sequences.append(sequence)
        entries = [
            unit.entry for (unit, _), fits in zip(items, accepted, strict=True) if fits and unit.entry is not None
        ]
        first = self._log_size
        self._insert_entries(first, entries)
        writer.execute("COMMIT")
        self._log_size = first + len(entries)
        self._sequence = sequence
        return self._number(items, accepted, first, sequences), entries

    @staticmethod
    def _number(items: list[Item], accepted: list[bool], index: int, sequences: list[int]) -> list[Result]:
        results: list[Result] = []
        for (unit, _), fits, sequence in zip(items, accepted, sequences, strict=True):
            if not fits:
                results.append(Conflict("a record has another version than expected"))
            elif unit.entry is None:
                results.append(Committed(-1, sequence))
            else:
                results.append(Committed(index, sequence))
                index += 1
        return results

    def _insert_entries(self, first: int, entries: list[bytes]) -> None:
        if entries:
            data = pack_entries(entries)
            self._pages += 2 + len(data) // PAGE
            self._writer.execute("INSERT INTO log VALUES (?, ?, ?)", (first, len(entries), data))

    def _apply(self, unit: Unit, sequence: int) -> bool:
        """Write the unit whole, or nothing of it: False when a version is not the expected one."""
        writes = unit.writes
        if not writes:
            return True
        several = len(writes) > 1
        if several:
            self._writer.execute("SAVEPOINT unit")
        for part, write in enumerate(writes):
            if not self._write(write):
                if several:
                    self._writer.execute("ROLLBACK TO unit")
                    self._writer.execute("RELEASE unit")
                return False
            self._writer.execute(
                "INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)",
                (sequence, part, write.kind, write.id, write.expected + 1, write.body is None),
            )
            self._pages += 4 + (0 if write.body is None else len(write.body) // PAGE)
        if several:
            self._writer.execute("RELEASE unit")
        return True

    def _write(self, write: Write) -> bool:
        writer = self._writer
        kind, id_, expected, body = write.kind, write.id, write.expected, write.body
        if body is None and expected == 0:
            return not fetch(writer, "SELECT 1 FROM record WHERE kind = ? AND id = ?", (kind, id_))
        if body is None:
            writer.execute("DELETE FROM record WHERE kind = ? AND id = ? AND version = ?", (kind, id_, expected))
        elif expected == 0:
            writer.execute("INSERT INTO record VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING", (kind, id_, body))
        else:
            writer.execute(
                "UPDATE record SET version = version + 1, body = ? WHERE kind = ? AND id = ? AND version = ?",
                (body, kind, id_, expected),
            )
        return writer.changes() == 1

    def _forget_changes(self) -> None:
        """Let the oldest units of the change feed go, a piece at a time. A failure only leaves it longer."""
        oldest = next_oldest(self._oldest, self._sequence, self.kept_changes)
        if oldest == self._oldest:
            return
        try:
            self._writer.execute("DELETE FROM change WHERE sequence < ?", (oldest,))
        except apsw.Error as error:
            _log.warning("the change feed could not be shortened: %s", error)
            return
        self._pages += (oldest - self._oldest) // 16
        self._oldest = oldest

    def _checkpoint(self) -> None:
        """Move pages from the write-ahead log to the database; a failure only leaves the log longer."""
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            pass  # the end of a backup does it (`copying`)
        except apsw.Error as error:
            _log.warning("the write-ahead log could not be checkpointed: %s", error)
        self._pages = 0
