"""What openk needs of any store; each test runs on all of them."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.store.feed import BATCH, PIECE, next_oldest
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Behind, Change, Committed, Conflict, LocalStore, Record, StoreError, Unit, Write
from openk_hsm.pending import Pending, drive
from tests.daemon.store.answers import answer, commit


async def test_a_record_is_read_as_it_was_written(store: LocalStore) -> None:
    await commit(store, Write("key", b"\x00\xff", 0, b"body"))
    assert await answer(store.read("key", b"\x00\xff")) == Record("key", b"\x00\xff", 1, b"body")
    assert await answer(store.read("key", b"\x00")) is None
    assert await answer(store.read("vault", b"\x00\xff")) is None


async def test_each_write_raises_the_version(store: LocalStore) -> None:
    await commit(store, Write("key", b"a", 0, b"1"))
    await commit(store, Write("key", b"a", 1, b"2"))
    assert await answer(store.read("key", b"a")) == Record("key", b"a", 2, b"2")


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_wrong_version_is_a_conflict_and_writes_nothing(store: LocalStore, expected: int) -> None:
    await commit(store, Write("key", b"a", 0, b"1"), entry=b"one")
    await commit(store, Write("key", b"a", 1, b"2"))
    with pytest.raises(Conflict):
        await commit(store, Write("key", b"b", 0, b"x"), Write("key", b"a", expected, b"3"), entry=b"two")
    assert await answer(store.read("key", b"a")) == Record("key", b"a", 2, b"2")
    assert await answer(store.read("key", b"b")) is None
    assert store.log_size() == 1
    changes = await answer(store.changes(0))
    assert len(changes) == 2
    assert store.failing is None


async def test_what_does_not_exist_can_be_neither_changed_nor_deleted(store: LocalStore) -> None:
    for body in (b"x", None):
        with pytest.raises(Conflict):
            await commit(store, Write("key", b"a", 1, body))


async def test_a_deleted_record_is_gone_and_may_be_made_again(store: LocalStore) -> None:
    await commit(store, Write("key", b"a", 0, b"1"))
    await commit(store, Write("key", b"a", 1, None))
    assert await answer(store.read("key", b"a")) is None
    assert await answer(store.query("key")) == []
    with pytest.raises(Conflict):
        await commit(store, Write("key", b"a", 2, b"2"))
    await commit(store, Write("key", b"a", 0, b"3"))
    assert await answer(store.read("key", b"a")) == Record("key", b"a", 1, b"3")


async def test_a_deletion_may_demand_that_nothing_is_there(store: LocalStore) -> None:
    await commit(store, Write("key", b"a", 0, None))
    await commit(store, Write("key", b"a", 0, b"1"))
    with pytest.raises(Conflict):
        await commit(store, Write("key", b"a", 0, None))


async def test_writes_of_a_unit_follow_each_other(store: LocalStore) -> None:
    await commit(store, Write("key", b"a", 0, b"1"), Write("key", b"a", 1, b"2"), Write("key", b"b", 0, b"x"))
    assert await answer(store.read("key", b"a")) == Record("key", b"a", 2, b"2")


async def test_queries_are_in_order_with_prefix_start_and_limit(store: LocalStore) -> None:
    ids = [b"\x00", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"]
    await commit(store, *(Write("key", id_, 0, id_) for id_ in reversed(ids)), Write("vault", b"a", 0, b""))

    async def ask(prefix: bytes = b"", after: bytes = b"", limit: int = 1000) -> list[bytes]:
        return [record.id for record in await answer(store.query("key", prefix, after, limit))]

    assert await ask() == ids
    assert await ask(b"a") == [b"a", b"a\x00", b"a\xff", b"a\xff\xff"]
    assert await ask(b"a", b"a") == [b"a\x00", b"a\xff", b"a\xff\xff"]
    assert await ask(b"a\xff") == [b"a\xff", b"a\xff\xff"]
    assert await ask(b"\xff") == [b"\xff", b"\xff\xff"]
    assert await ask(b"a", b"a\xff\xff") == []
    assert await ask(b"", b"b", limit=1) == [b"\xff"]
    assert await ask(b"", b"", limit=0) == []
    assert await ask(b"c") == []


async def test_kinds_are_those_with_records(store: LocalStore) -> None:
    await commit(store, Write("vault", b"a", 0, b""), Write("key", b"a", 0, b""), Write("key", b"b", 0, b""))
    await commit(store, Write("vault", b"a", 1, None))
    assert await answer(store.kinds()) == ["key"]


async def test_the_log_gives_each_entry_its_place(store: LocalStore) -> None:
    assert (await commit(store, entry=b"zero")).index == 0
    assert (await commit(store, Write("key", b"a", 0, b""), entry=b"one")).index == 1
    assert (await commit(store, Write("key", b"b", 0, b""))).index == -1
    assert (await commit(store, entry=b"")).index == 2
    assert store.log_size() == 3
    assert await answer(store.entries(0)) == [b"zero", b"one", b""]
    assert await answer(store.entries(1, 1)) == [b"one"]
    assert await answer(store.entries(3)) == []
    assert await answer(store.entries(7, 2)) == []


async def test_a_group_settles_in_the_order_of_the_log_and_conflicts_fail_alone(store: LocalStore) -> None:
    order: list[int] = []
    pendings = [
        store.commit(Unit((Write("key", b"a", 0, b"%d" % number),) if number % 3 == 0 else (), b"%d" % number))
        for number in range(30)
    ]
    results: list[Committed | Exception] = []

    def listen(number: int, pending: Pending[Committed]) -> None:
        def note(value: Committed | None, error: Exception | None) -> None:
            order.append(number)
            results.append(value if value is not None else error or AssertionError())

        async def wait() -> Committed:
            return await pending

        drive(wait(), note)

    for number, pending in enumerate(pendings):
        listen(number, pending)
    await answer(store.commit(Unit((), None)))
    assert order == list(range(30))
    accepted = [number for number in range(30) if number == 0 or number % 3]
    assert [index for index, result in enumerate(results) if isinstance(result, Committed)] == accepted
    assert all(isinstance(result, (Committed, Conflict)) for result in results)
    assert [result.index for result in results if isinstance(result, Committed)] == list(range(len(accepted)))
    assert await answer(store.entries(0)) == [b"%d" % number for number in accepted]
    assert await answer(store.read("key", b"a")) == Record("key", b"a", 1, b"0")


async def test_the_feed_tells_every_change_once_and_never_half_a_unit(store: LocalStore) -> None:
    first = await commit(store, Write("key", b"a", 0, b"1"), Write("key", b"b", 0, b"1"), Write("vault", b"v", 0, b""))
    second = await commit(store, Write("key", b"a", 1, None))
    silent = await commit(store, entry=b"nothing changed")
    assert first.sequence < second.sequence == silent.sequence
    expected = [
        Change(first.sequence, "key", b"a", 1, False),
        Change(first.sequence, "key", b"b", 1, False),
        Change(first.sequence, "vault", b"v", 1, False),
        Change(second.sequence, "key", b"a", 2, True),
    ]
    for limit in (1, 2, 3, 4, 5):
        seen: list[Change] = []
        while page := await answer(store.changes(seen[-1].sequence if seen else 0, limit)):
            seen += page
        assert seen == expected


@pytest.mark.parametrize("kept", [1, 300])
async def test_the_feed_is_bounded_and_a_reader_who_comes_too_late_is_told_so(store: LocalStore, kept: int) -> None:
    """What is kept at least stays, what there is at most is bounded, and no answer has a gap."""
    store.keep_changes(kept)
    newest = await write(store, 0, kept + 2 * BATCH + 10)
    for number in range(newest, newest + 2):  # a group shortens the feed once it is answered
        newest = await write(store, number, 1)
    with pytest.raises(Behind):
        await answer(store.changes(0))
    told = await answer(store.changes(newest - kept, 10_000))
    assert [change.sequence for change in told] == [*range(newest - kept + 1, newest + 1)]
    assert kept <= newest + 1 - await oldest_of(store, newest) <= kept + BATCH
    assert await answer(store.changes(newest)) == []
    assert await answer(store.read("key", b"a")) is not None, "records are not of the feed"


async def test_a_feed_that_is_much_too_long_becomes_shorter_in_pieces(store: LocalStore) -> None:
    newest = await write(store, 0, 2 * PIECE + 10)
    assert await oldest_of(store, newest) == 1, "the usual bound is far away"
    store.keep_changes(1)
    oldest = 1
    with trio.fail_after(30):
        while oldest < 2 * PIECE:
            newest = await write(store, newest, 1)
            before, oldest = oldest, await oldest_of(store, newest)
            assert (oldest - before) % PIECE == 0


async def write(store: LocalStore, first: int, count: int) -> int:
    """Change one record so many times, in as few groups as may be; the last one's sequence."""
    waiting = [store.commit(Unit((Write("key", b"a", number, b"x"),))) for number in range(first, first + count)]
    return [await answer(pending) for pending in waiting][-1].sequence


async def oldest_of(store: LocalStore, newest: int) -> int:
    """The sequence of the oldest unit that the feed still has. It may become shorter during a search: then once more."""
    found = await search_oldest(store, newest)
    while (again := await search_oldest(store, newest)) != found:
        found = again
    return found


async def search_oldest(store: LocalStore, newest: int) -> int:
    lost, kept = -1, newest - 1
    while kept - lost > 1:
        middle = (lost + kept) // 2
        try:
            await answer(store.changes(middle, 1))
            kept = middle
        except Behind:
            lost = middle
    return kept + 1


@given(kept=st.integers(1, 5000), newest=st.integers(0, 20_000), oldest=st.integers(1, 20_001))
def test_what_goes_of_the_feed(kept: int, newest: int, oldest: int) -> None:
    oldest = min(oldest, newest + 1)
    left = next_oldest(oldest, newest, kept)
    assert oldest <= left <= oldest + PIECE
    assert left == oldest or newest + 1 - left >= kept
    for _ in range(30):
        left = next_oldest(left, newest, kept)
    assert newest + 1 - left < kept + BATCH


async def test_the_hook_runs_after_the_units_of_a_group_settled() -> None:
    store = MemoryStore(deferred=True)
    calls: list[int] = []
    store.after_group = lambda: calls.append(store.log_size())
    pendings = [store.commit(Unit((), b"x")) for _ in range(3)]
    assert not pendings[2].settled
    await answer(pendings[0])
    assert calls == [3]
    assert all(pending.settled for pending in pendings)


async def test_a_closed_store_refuses(store: LocalStore) -> None:
    last = store.commit(Unit((), b"queued"))
    store.close()
    store.close()
    assert last.settled
    assert last.result().index == 0
    with pytest.raises(StoreError):
        await commit(store, entry=b"late")


async def test_errors_are_not_shared_between_callers(store: LocalStore) -> None:
    store.close()
    refused = [store.commit(Unit((), b"x")) for _ in range(2)]
    errors: list[BaseException] = []
    for pending in refused:
        with pytest.raises(StoreError) as caught:
            pending.result()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
