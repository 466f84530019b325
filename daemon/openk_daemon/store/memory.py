"""A store in memory: for tests and for daemons that need no state. Nothing outlives the process.

It is the reference the other stores are measured by: one conformance suite, one model.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence

import trio

from openk_daemon.store.feed import KEPT, next_oldest
from openk_daemon.store.seam import Behind, Change, Committed, Conflict, Record, StoreError, Unit, Write
from openk_hsm.pending import Pending, failed, resolved


def do_nothing() -> None:
    """The `after_group` of a store nobody listens to."""


class MemoryStore:
    """`deferred` False: units settle before `commit` returns, and `after_group` never runs (works without
    trio). `deferred` True: they settle at the next turn of the trio loop, in groups, as durable stores do."""

    def __init__(self, *, deferred: bool = False) -> None:
        self.after_group: Callable[[], None] = do_nothing
        self._kept = KEPT
        self._deferred = deferred
        self._records: dict[str, dict[bytes, Record]] = {}
        self._order: dict[str, list[bytes]] = {}  # ids of each kind, sorted
        self._changes: list[Change] = []
        self._log: list[bytes] = []
        self._sequence = 0
        self._oldest = 1  # sequence of the oldest unit in the feed
        self._queue: list[tuple[Unit, Pending[Committed]]] = []
        self._failing: StoreError | None = None
        self._closed = False

    @property
    def failing(self) -> StoreError | None:
        return self._failing

    def fail_with(self, error: StoreError | None) -> None:
        """For tests: refuse every commit with `error`, as a full disk would, until called with None."""
        self._failing = error

    def read(self, kind: str, id_: bytes) -> Pending[Record | None]:
        return resolved(self._records.get(kind, {}).get(id_))

    def query(self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1000) -> Pending[Sequence[Record]]:
        order = self._order.get(kind, [])
        records = self._records.get(kind, {})
        start = bisect_left(order, prefix)
        if after:
            start = max(start, bisect_right(order, after))
        found: list[Record] = []
        for id_ in order[start : start + max(limit, 0)]:
            if not id_.startswith(prefix):
                break
            found.append(records[id_])
        return resolved(found)

    def keep_changes(self, units: int) -> None:
        self._kept = units

    def kinds(self) -> Pending[Sequence[str]]:
        return resolved(sorted(kind for kind, order in self._order.items() if order))

    def changes(self, after: int, limit: int = 1000) -> Pending[Sequence[Change]]:
        if after + 1 < self._oldest:
            return failed(Behind(f"the change feed begins with unit {self._oldest}"))
        start = bisect_right(self._changes, after, key=lambda change: change.sequence)
        end = min(start + max(limit, 0), len(self._changes))
        while start < end < len(self._changes) and self._changes[end].sequence == self._changes[end - 1].sequence:
            end += 1  # never half of a unit: a cursor could not come back to the rest
        return resolved(self._changes[start:end])

    def entries(self, first: int, limit: int = 256) -> Pending[Sequence[bytes]]:
        return resolved(self._log[first : first + max(limit, 0)])

    def log_size(self) -> int:
        return len(self._log)

    def commit(self, unit: Unit) -> Pending[Committed]:
        if self._closed:
            return failed(StoreError("the store is closed"))
        if not self._deferred:
            pending: Pending[Committed] = Pending()
            self._apply(unit, pending)
            return pending
        if not self._queue:
            trio.lowlevel.current_trio_token().run_sync_soon(self._settle_group)
        pending = Pending()
        self._queue.append((unit, pending))
        return pending

    def close(self) -> None:
        self._closed = True
        self._settle_group()

    def _settle_group(self) -> None:
        group, self._queue = self._queue, []
        for unit, pending in group:
            self._apply(unit, pending)
        if group:
            self.after_group()

    def _apply(self, unit: Unit, pending: Pending[Committed]) -> None:
        if self._failing is not None:
            pending.fail(self._failing.again())
            return
        versions: dict[tuple[str, bytes], int] = {}
        for write in unit.writes:
            key = (write.kind, write.id)
            now = versions.get(key)
            if now is None:
                record = self._records.get(write.kind, {}).get(write.id)
                now = 0 if record is None else record.version
            if now != write.expected:
                pending.fail(Conflict(f"a {write.kind} has version {now}, expected {write.expected}"))
                return
            versions[key] = 0 if write.body is None else write.expected + 1
        if unit.writes:
            self._sequence += 1
        for write in unit.writes:
            self._write(write)
        self._oldest = next_oldest(self._oldest, self._sequence, self._kept)
        del self._changes[: bisect_left(self._changes, self._oldest, key=lambda change: change.sequence)]
        index = -1
        if unit.entry is not None:
            index = len(self._log)
            self._log.append(unit.entry)
        pending.resolve(Committed(index, self._sequence))

    def _write(self, write: Write) -> None:
        records = self._records.setdefault(write.kind, {})
        order = self._order.setdefault(write.kind, [])
        version = write.expected + 1
        self._changes.append(Change(self._sequence, write.kind, write.id, version, write.body is None))
        if write.body is None:
            # deleting what does not exist (expected 0) is allowed and leaves a tombstone in the feed
            if records.pop(write.id, None) is not None:
                order.pop(bisect_left(order, write.id))
            return
        if write.id not in records:
            insort(order, write.id)
        records[write.id] = Record(write.kind, write.id, version, write.body)
