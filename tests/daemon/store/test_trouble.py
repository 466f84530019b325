"""Disks that are full, slow or lie; queues that are full; listeners that fail."""

# ruff: noqa: ASYNC221, ASYNC240 - no other task waits here while a test looks at its files
from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import apsw
import pytest
import trio

from openk_daemon.store.committer import Committer, Group, Item
from openk_daemon.store.database import FILE, pack_entries, translate, unpack_entries
from openk_daemon.store.seam import Committed, Damaged, Full, StoreError, Unit, Write
from openk_daemon.store.sqlite import SqliteStore, open_store
from openk_hsm.pending import Pending
from tests.daemon.store.answers import answer, commit

BODY = bytes(range(256)) * 128


@contextlib.contextmanager
def small_files(folder: str) -> Generator[None]:
    """No file may grow beyond 5 MiB, as under a quota or on the largest file a medium takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def full_disk(folder: str) -> Generator[None]:
    """A file takes the room that is left on the small file system of `folder`, but for 64 KiB."""
    ballast = os.path.join(os.path.dirname(folder), "ballast")
    found = os.statvfs(folder)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - (64 << 10))
    try:
        yield
    finally:
        os.unlink(ballast)


def mount_small(path: Path) -> bool:
    """A file system of 12 MiB; False for users who may not mount."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def fill(store: SqliteStore, start: int) -> int:
    """Commit until it fails; the number of units that were acknowledged."""
    for number in range(start, start + 2000):
        try:
            await commit(store, Write("key", b"%06d" % number, 0, BODY), entry=b"%06d" % number)
        except Full:
            return number
    raise AssertionError("the disk never was full")


async def check_all(store: SqliteStore, count: int) -> None:
    assert store.log_size() == count
    assert await answer(store.entries(0, count)) == [b"%06d" % number for number in range(count)]
    assert [record.body for record in await answer(store.query("key", limit=count + 1))] == [BODY] * count


async def live_through_a_full_disk(folder: str, limit: contextlib.AbstractContextManager[None]) -> None:
    async with open_store(folder) as store:
        await commit(store, Write("key", b"%06d" % 0, 0, BODY), entry=b"%06d" % 0)
        with limit:
            count = await fill(store, 1)
            assert type(store.failing) is Full
            with pytest.raises(Full):  # and again: the first failure has left nothing half-done
                await commit(store, Write("key", b"%06d" % count, 0, BODY), entry=b"x" * 100_000)
            await check_all(store, count)
        await commit(store, Write("key", b"%06d" % count, 0, BODY), entry=b"%06d" % count)
        assert not store.failing
        await check_all(store, count + 1)
    async with open_store(folder) as store:
        await check_all(store, count + 1)


async def test_a_limit_on_files_fails_units_whole_and_the_store_goes_on_after_it(folder: str) -> None:
    await live_through_a_full_disk(folder, small_files(folder))


async def test_a_full_disk_fails_units_whole_and_the_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    mounted = mount_small(tmp_path / "small")
    try:
        folder = str(tmp_path / "small" / "state")
        os.mkdir(folder, 0o700)
        await live_through_a_full_disk(folder, full_disk(folder) if mounted else small_files(folder))
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


async def test_every_flipped_bit_is_noticed_or_does_no_harm(folder: str) -> None:
    chance = random.Random(7)  # the same bits each time
    async with open_store(folder) as store:
        for number in range(60):
            await commit(store, Write("key", b"%03d" % number, 0, BODY[: 50 * number]), entry=BODY[: 20 * number])
        truth = (await answer(store.query("key")), await answer(store.entries(0)))
    path = Path(folder, FILE)
    assert not os.path.exists(f"{path}-wal")  # a store that was closed is one whole file
    pristine = path.read_bytes()
    noticed = 0
    for page in range(len(pristine) // 4096):
        broken = bytearray(pristine)
        broken[page * 4096 + chance.randrange(4096)] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        try:
            async with open_store(folder) as store:
                seen = (await answer(store.query("key")), await answer(store.entries(0)))
        except* (Damaged, StoreError):
            noticed += 1
        else:
            assert seen == truth
    assert noticed > len(pristine) // 4096 * 0.8


async def test_a_damaged_page_is_called_damaged(folder: str) -> None:
    async with open_store(folder) as store:
        await commit(store, Write("key", b"a", 0, b"needle" * 500))
    path = Path(folder, FILE)
    assert not os.path.exists(f"{path}-wal")  # a store that was closed is one whole file
    content = bytearray(path.read_bytes())
    content[content.index(b"needleneedle") + 100] ^= 1
    path.write_bytes(content)
    async with open_store(folder) as store:
        with pytest.raises(Damaged):
            await answer(store.read("key", b"a"))
        with pytest.raises(Damaged):
            await commit(store, Write("key", b"a", 1, b"new"))


async def test_a_log_without_its_page_checksums_is_refused(folder: str) -> None:
    database = apsw.Connection(os.path.join(folder, FILE))
    database.execute("CREATE TABLE record (x); PRAGMA application_id = 1869638483; PRAGMA user_version = 1")
    database.close()
    with pytest.raises(Damaged, match="checksums"):
        SqliteStore(folder)


@pytest.mark.parametrize("data", [b"", b"\x01\x00\x00", b"\x02\x00\x00\x00a", b"\x01\x00\x00\x00ab"])
def test_a_row_of_the_log_with_wrong_lengths_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        unpack_entries(1, data)


def test_rows_of_the_log_are_read_as_they_were_written() -> None:
    entries = [b"", b"a", b"bc" * 500]
    assert unpack_entries(3, pack_entries(entries)) == entries


def test_errors_of_sqlite_have_a_meaning() -> None:
    assert type(translate(apsw.FullError("x"))) is Full
    assert type(translate(apsw.CorruptError("x"))) is Damaged
    assert type(translate(apsw.CantOpenError("x"))) is StoreError


class Gate:
    """Holds the commit thread, as a disk that does not answer would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        genuine = Committer._write_group

        def write_group(committer: Committer, items: list[Item]) -> Group:
            self.entered.set()
            assert self.opened.wait(20)
            return genuine(committer, items)

        monkeypatch.setattr(Committer, "_write_group", write_group)

    async def wait_entered(self) -> None:
        assert await trio.to_thread.run_sync(self.entered.wait, 10)


async def test_no_more_units_wait_than_the_bound(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    async with open_store(folder, queue=5) as store:
        first = store.commit(Unit((), b"0"))
        await gate.wait_entered()
        waiting = [store.commit(Unit((), b"%d" % number)) for number in range(1, 5)]
        assert store.queued == 5
        with pytest.raises(StoreError, match="5 commits wait"):
            await commit(store, entry=b"too many")
        gate.opened.set()
        assert [(await answer(pending)).index for pending in (first, *waiting)] == list(range(5))


async def test_behind_a_disk_that_does_not_answer_nothing_waits_for_ever(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with open_store(folder, deadline=0.1) as store:
        stuck = store.commit(Unit((), b"stuck"))
        await gate.wait_entered()
        behind = store.commit(Unit((), b"behind"))
        with trio.fail_after(5), pytest.raises(StoreError, match="has not answered"):
            await answer(behind)
        with pytest.raises(StoreError, match="has not answered"):
            await commit(store, entry=b"later")
        assert store.failing is not None
        gate.opened.set()
        assert (await answer(stuck)).index == 0  # what the disk was given is told by what the disk did
        assert (await commit(store, entry=b"well again")).index == 1
        assert store.failing is None


async def test_a_mistake_in_one_unit_ends_neither_thread_nor_store(folder: str) -> None:
    async with open_store(folder) as store:
        with pytest.raises(StoreError):
            await commit(store, Write("key", b"a", 0, object()))  # type: ignore[arg-type]  # the mistake
        assert await answer(store.read("key", b"a")) is None
        assert (await commit(store, Write("key", b"a", 0, b"good"), entry=b"x")).index == 0


async def test_a_listener_that_fails_does_not_keep_others_from_their_answers(folder: str) -> None:
    def explode() -> None:
        raise LookupError("a mistake elsewhere")

    async with open_store(folder) as store:
        pendings: list[Pending[Committed]] = [store.commit(Unit((), b"x")) for _ in range(3)]
        pendings[0].when_settled(explode)
        store.after_group = explode
        assert (await answer(pendings[2])).index == 2
        assert (await commit(store, entry=b"y")).index == 3
        assert store.groups >= 2
        assert store.last_group == 1
