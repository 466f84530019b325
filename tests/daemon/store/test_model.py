"""Random histories: every store does what a dictionary would do, and SQLite still does after it was reopened."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

import hypothesis.strategies as st
import trio
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Committed, Conflict, LocalStore, Record, Unit, Write
from openk_daemon.store.sqlite import SqliteStore
from openk_hsm.pending import Pending
from tests.daemon.store.answers import answer

IDS = st.sampled_from([b"\x00", b"a", b"aa", b"a\xff", b"b", b"\xff"])
KINDS = st.sampled_from(["key", "vault"])
BODIES = st.none() | st.binary(max_size=20) | st.just(b"large" * 3000)
WRITES = st.tuples(KINDS, IDS, st.integers(-1, 1), BODIES)
ENTRIES = st.none() | st.binary(max_size=300)

Model = dict[tuple[str, bytes], Record]


class StoreMachine(RuleBasedStateMachine):
    """`expected` of a write is drawn as an offset from the true version, so that most writes fit."""

    store: LocalStore

    def __init__(self) -> None:
        super().__init__()
        self.records: Model = {}
        self.log: list[bytes] = []
        self.changes = 0

    def settle(self, pendings: list[Pending[Committed]]) -> None:
        raise NotImplementedError

    def reopen(self) -> None:
        raise NotImplementedError

    @rule(units=st.lists(st.tuples(st.lists(WRITES, max_size=3), ENTRIES), min_size=1, max_size=6))
    def commit_group(self, units: list[tuple[list[tuple[str, bytes, int, bytes | None]], bytes | None]]) -> None:
        pendings: list[Pending[Committed]] = []
        expected: list[int | None] = []
        for drawn, entry in units:
            model = dict(self.records)
            writes: list[Write] = []
            fits = True
            for kind, id_, offset, body in drawn:
                now = model[kind, id_].version if (kind, id_) in model else 0
                writes.append(Write(kind, id_, max(0, now + offset), body))
                fits = fits and writes[-1].expected == now
                model.pop((kind, id_), None)
                if body is not None:
                    model[kind, id_] = Record(kind, id_, now + 1, body)
            pendings.append(self.store.commit(Unit(writes, entry)))
            if fits:
                self.records = model
                self.changes += len(writes)
                expected.append(-1 if entry is None else len(self.log))
                if entry is not None:
                    self.log.append(entry)
            else:
                expected.append(None)
        self.settle(pendings)
        assert [self.outcome(pending) for pending in pendings] == expected

    @staticmethod
    def outcome(pending: Pending[Committed]) -> int | None:
        try:
            return pending.result().index
        except Conflict:
            return None

    @rule()
    def start_again(self) -> None:
        self.reopen()

    @rule(
        kind=KINDS,
        prefix=st.sampled_from([b"", b"a", b"\xff", b"c"]),
        after=st.just(b"") | IDS,
        limit=st.integers(0, 4),
    )
    def query(self, kind: str, prefix: bytes, after: bytes, limit: int) -> None:
        wanted = sorted(id_ for found, id_ in self.records if found == kind and id_.startswith(prefix))
        wanted = [id_ for id_ in wanted if not after or id_ > after][:limit]
        assert self.store.query(kind, prefix, after, limit).result() == [self.records[kind, id_] for id_ in wanted]

    @rule(first=st.integers(0, 30), limit=st.integers(0, 5))
    def read_log(self, first: int, limit: int) -> None:
        assert self.store.entries(first, limit).result() == self.log[first : first + limit]

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.log_size() == len(self.log)
        assert self.store.entries(0, 10_000).result() == self.log
        assert self.store.kinds().result() == sorted({kind for kind, _ in self.records})
        assert len(self.store.changes(0, 10_000).result()) == self.changes
        for (kind, id_), record in self.records.items():
            assert self.store.read(kind, id_).result() == record


class MemoryMachine(StoreMachine):
    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore()

    def settle(self, pendings: list[Pending[Committed]]) -> None:
        assert all(pending.settled for pending in pendings)

    def reopen(self) -> None:
        """It has nothing to come back to."""


class SqliteMachine(StoreMachine):
    folder: str

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.store: SqliteStore = SqliteStore(self.folder)

    def settle(self, pendings: list[Pending[Committed]]) -> None:
        async def wait() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.store.run)
                with trio.fail_after(10):
                    await answer(self.store.commit(Unit()))  # settles after all that came before
                assert all(pending.settled for pending in pendings)
                nursery.cancel_scope.cancel()

        trio.run(wait)

    def reopen(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.folder)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)
            assert not os.path.exists(self.folder)


def case(machine: Callable[[], StoreMachine], examples: int) -> type:
    machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=20, deadline=None)  # type: ignore[attr-defined]  # hypothesis puts it there
    return machine.TestCase  # type: ignore[attr-defined,no-any-return]  # see above


TestMemory = case(MemoryMachine, 60)
TestSqlite = case(SqliteMachine, 25)
