"""A backup is made whole or not at all, while commits go on; what is in it is what was acknowledged before."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from pathlib import Path

import pytest
import trio

from openk_daemon.backup import maker as maker_module
from openk_daemon.backup import shelf as shelf_module
from openk_daemon.backup.maker import Course, Maker
from openk_daemon.backup.seam import BackupDamaged, BackupFailed, Reason
from openk_daemon.backup.verification import verify
from openk_daemon.store.copying import SqliteOriginal
from openk_daemon.store.database import open_database
from openk_daemon.store.folder import FolderLock
from openk_daemon.store.seam import StoreError, Unit, Write
from openk_daemon.store.sqlite import open_store
from tests.daemon.audit.logs import ORIGIN, run_state
from tests.daemon.backup.states import SIZE, fill, make, maker, order, shelf
from tests.daemon.store.answers import answer

PAGE = 4096


def bad_pages(database: Path) -> list[int]:
    """Pages whose last eight bytes are not the checksum of the rest, computed as sqlite.org/cksumvfs.html draws it."""
    content = database.read_bytes()
    bad: list[int] = []
    for at in range(0, len(content), PAGE):
        first = second = 0
        words = struct.unpack_from(f"<{(PAGE - 8) // 4}I", content, at)
        for even, odd in zip(words[::2], words[1::2], strict=True):
            first = (first + even + second) & 0xFFFFFFFF
            second = (second + odd + first) & 0xFFFFFFFF
        if struct.pack("<II", first, second) != content[at + PAGE - 8 : at + PAGE]:
            bad.append(at // PAGE + 1)
    return bad


async def test_a_backup_is_verified_and_says_what_is_in_it(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    made = make(tmp_path, head)
    folder = tmp_path / "backups" / made.backup.name
    assert sorted(os.listdir(folder)) == ["backup.json", "checkpoint", "store.db"]
    assert (made.backup.entries, made.backup.signed) == (SIZE, SIZE - 9)
    assert made.backup.bytes == (folder / "store.db").stat().st_size
    assert made.listed == [made.backup]
    assert (folder / "checkpoint").read_text() == head
    verified = verify(folder, SqliteOriginal(str(folder)))
    assert (verified.manifest.entries, verified.checkpoint.origin) == (SIZE, ORIGIN)
    assert json.loads((folder / "backup.json").read_text())["openk"] == "0.0.0"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_pages_that_wait_in_the_write_ahead_log_have_their_checksums_in_the_copy(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    writer, reader = open_database(str(state))
    for number in range(300):  # nothing moves them from the write-ahead log meanwhile; more than the copy keeps in memory
        writer.execute("INSERT INTO log VALUES (?, 1, ?)", (number, struct.pack("<I", 20_000) + bytes(20_000)))
    into = tmp_path / "copy"
    into.mkdir()
    SqliteOriginal(str(state)).copy(str(into), lambda _done, _whole: None)
    reader.close()
    writer.close()
    assert (into / "store.db").stat().st_size > 4 << 20
    assert bad_pages(into / "store.db") == []


async def test_commits_go_on_and_what_was_acknowledged_before_is_in_it(tmp_path: Path) -> None:
    """The copying is held up between its pieces, and commits are acknowledged in each of them."""
    state = tmp_path / "state"
    head = await fill(state)
    async with open_store(str(state)) as store:
        await answer(store.commit(Unit([Write("key", b"before", 0, bytes(3 << 20))])))
        pieces, go = threading.Semaphore(0), threading.Semaphore(0)

        def wait() -> None:
            pieces.release()
            assert go.acquire(timeout=10)

        course = Course()
        course.go_on = wait  # type: ignore[method-assign]
        done: list[object] = []

        async def work() -> None:
            done.append(await trio.to_thread.run_sync(lambda: maker(tmp_path).make(order(head), course)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            held = 0
            while not done:
                assert held < 200, "it begins anew with each commit"
                if pieces.acquire(blocking=False):
                    with trio.fail_after(10):
                        await answer(store.commit(Unit([Write("key", b"during %d" % held, 0, bytes(100_000))], b"{}")))
                    held += 1
                    go.release()
                await trio.sleep(0.001)
        assert held > 3, "it was copied in one piece: the test shows nothing"
        size = store.log_size()
    (made,) = done
    assert made.backup.entries == SIZE  # type: ignore[attr-defined]
    assert size > SIZE
    folder = tmp_path / "backups" / made.backup.name  # type: ignore[attr-defined]
    async with run_copy(folder, tmp_path) as copied:
        assert (await answer(copied.read("key", b"before"))) is not None
        assert (await answer(copied.read("key", b"during 0"))) is None


def run_copy(folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN201 - an open_store
    state = tmp_path / "copied"
    state.mkdir(mode=0o700)
    (state / "store.db").write_bytes((folder / "store.db").read_bytes())
    return open_store(str(state))


async def test_the_write_ahead_log_is_moved_and_cut_down_afterwards(tmp_path: Path) -> None:
    state = tmp_path / "state"
    head = await fill(state)
    wal = state / "store.db-wal"
    async with open_store(str(state)) as store:
        await answer(store.commit(Unit([Write("key", b"before", 0, bytes(3 << 20))])))
        before = store.log_size()

        def grow() -> None:  # on the backup's thread, whose snapshot holds the write-ahead log
            if not wal.stat().st_size > 17 << 20:
                for number in range(60):
                    trio.from_thread.run(commit, number)

        async def commit(number: int) -> None:
            await answer(store.commit(Unit([Write("key", b"large %d" % number, 0, bytes(400_000))], b"{}")))

        course = Course()
        course.go_on = grow  # type: ignore[method-assign]
        await trio.to_thread.run_sync(lambda: maker(tmp_path).make(order(head), course))
        assert wal.stat().st_size > 17 << 20, "it did not grow: the test shows nothing"
        for _ in range(1000):  # the commit thread moves the rest in its own time
            await answer(store.commit(Unit([], b"{}" * 1000)))
            if wal.stat().st_size <= 16 << 20:
                break
        assert wal.stat().st_size <= 16 << 20
        assert store.log_size() > before + 60


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
async def test_a_flipped_bit_in_the_state_makes_no_backup(tmp_path: Path, place: float) -> None:
    head = await fill(tmp_path / "state")
    database = tmp_path / "state" / "store.db"
    content = bytearray(database.read_bytes())
    content[int(len(content) * place) // PAGE * PAGE + 1000] ^= 1
    database.write_bytes(content)
    with pytest.raises(BackupFailed) as failed:
        make(tmp_path, head)
    assert failed.value.reason is Reason.DAMAGED
    assert os.listdir(tmp_path / "backups") == ["lock"]


async def test_a_head_that_is_ahead_of_the_store_makes_no_backup(tmp_path: Path) -> None:
    await fill(tmp_path / "state")
    async with run_state(str(tmp_path / "ahead")) as running:
        await running.fill(SIZE + 5)
        ahead = (await running.head()).checkpoint
    with pytest.raises(BackupFailed) as failed:
        make(tmp_path, ahead)
    assert failed.value.reason is Reason.DAMAGED
    assert "entry 700 is the first that is missing" in str(failed.value.__cause__)


async def test_a_head_of_another_log_makes_no_backup(tmp_path: Path) -> None:
    await fill(tmp_path / "state")
    async with run_state(str(tmp_path / "other")) as running:
        await running.fill(100)
        other = (await running.head()).checkpoint
    with pytest.raises(BackupFailed) as failed:
        make(tmp_path, other)
    assert "the signed head does not fit" in str(failed.value.__cause__)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["write_file", "sync_folder"])
async def test_a_disk_that_fails_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, step: str
) -> None:
    head = await fill(tmp_path / "state")
    kept = make(tmp_path, head).backup

    def fail(*_arguments: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(maker_module if step == "write_file" else shelf_module, step, fail)
    with pytest.raises(BackupFailed) as failed:
        make(tmp_path, head)
    assert failed.value.reason is (Reason.DISK if error == errno.EIO else Reason.SPACE)
    assert maker(tmp_path).shelf.list() == [kept]
    assert sorted(os.listdir(tmp_path / "backups")) == sorted([kept.name, "lock"])


async def test_room_is_looked_for_before_and_the_reserve_is_the_logs(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    with pytest.raises(BackupFailed) as failed:
        maker(tmp_path).make(order(head, reserve=free - (1 << 20)), Course())
    assert failed.value.reason is Reason.SPACE
    assert "audit.reserve_bytes" in failed.value.text
    assert os.listdir(tmp_path / "backups") == ["lock"]


async def test_a_slow_disk_does_not_fill_that_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is copied commits gather in the write-ahead log; before that costs the log its reserve it is given up."""
    head = await fill(tmp_path / "state")
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    monkeypatch.setattr(Maker, "same_disk", lambda _maker: False)
    async with open_store(str(tmp_path / "state")) as store:
        await answer(store.commit(Unit([Write("key", b"large", 0, bytes(3 << 20))])))
        await trio.to_thread.run_sync(lambda: maker(tmp_path).make(order(head, reserve=free), Course()))
        monkeypatch.setattr(maker_module, "GATHERED", 1 << 20)
        with pytest.raises(BackupFailed) as failed:
            await trio.to_thread.run_sync(lambda: maker(tmp_path).make(order(head, reserve=free), Course()))
    assert failed.value.reason is Reason.SPACE
    assert "too slow" in failed.value.text


async def test_what_was_left_by_an_interrupted_one_is_cleared(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    left = shelf(tmp_path) / ".partial-99"
    left.mkdir()
    (left / "store.db").write_bytes(bytes(100))
    (tmp_path / "backups" / ".partial-a-file").write_bytes(b"")
    strange = tmp_path / "backups" / "20260101T000000Z-12"
    strange.mkdir()  # no backup.json: not ours, or not whole; it is left alone and does not count
    made = make(tmp_path, head)
    assert sorted(os.listdir(tmp_path / "backups")) == sorted([made.backup.name, "lock", strange.name])
    assert made.listed == [made.backup]


async def test_the_oldest_go_once_a_newer_one_is_there(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    moments = iter(range(1_000_000_000, 1_000_000_600, 100))
    names = [make(tmp_path, head, keep=2, clock=lambda: next(moments)).backup.name for _ in range(4)]
    assert [backup.name for backup in maker(tmp_path).shelf.list()] == names[-2:]


async def test_a_clock_that_was_set_back_does_not_make_the_newest_go(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    for moment in (2_000_000_000, 2_000_000_100):
        make(tmp_path, head, keep=2, clock=lambda moment=moment: moment)
    newest = make(tmp_path, head, keep=2, clock=lambda: 1_000_000_000).backup
    assert newest in maker(tmp_path).shelf.list()
    assert len(maker(tmp_path).shelf.list()) == 2


async def test_a_failed_one_removes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = await fill(tmp_path / "state")
    kept = [make(tmp_path, head, keep=2, clock=lambda at=at: at).backup for at in (1_000_000_000, 1_000_000_100)]

    def fail(*_arguments: object) -> None:
        raise BackupDamaged("an exercise")

    monkeypatch.setattr("openk_daemon.backup.verification.examine", fail)
    with pytest.raises(BackupFailed):
        make(tmp_path, head, keep=1)
    assert maker(tmp_path).shelf.list() == kept


@pytest.mark.parametrize("wrong", ["writable", "missing", "link"])
async def test_a_folder_that_is_not_fit(tmp_path: Path, wrong: str) -> None:
    head = await fill(tmp_path / "state")
    making, folder = maker(tmp_path), shelf(tmp_path)
    if wrong == "writable":
        folder.chmod(0o770)
    else:
        folder.rmdir()
    if wrong == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    with pytest.raises(BackupFailed) as failed:
        making.make(order(head), Course())
    assert failed.value.reason is Reason.FOLDER
    assert str(tmp_path) not in failed.value.text


async def test_one_at_a_time_in_one_folder(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    lock = FolderLock(str(shelf(tmp_path)))
    with pytest.raises(BackupFailed) as failed:
        make(tmp_path, head)
    assert failed.value.reason is Reason.BUSY
    lock.release()
    make(tmp_path, head)


async def test_it_stops_in_the_middle_when_told_to(tmp_path: Path) -> None:
    head = await fill(tmp_path / "state")
    course = Course()
    course.stopping = True
    with pytest.raises(BackupFailed) as failed:
        maker(tmp_path).make(order(head), course)
    assert failed.value.reason is Reason.STOPPED
    assert os.listdir(tmp_path / "backups") == ["lock"]


async def test_it_stops_while_pages_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(tmp_path / "state")
    monkeypatch.setattr("openk_daemon.store.copying._OPERATIONS", 1)
    original = SqliteOriginal(str(tmp_path / "state"))

    def stop() -> None:
        raise BackupFailed(Reason.STOPPED, "an exercise")

    with original.open(str(tmp_path / "state")) as copy, pytest.raises(BackupFailed, match="an exercise"):
        copy.check(stop)


async def test_a_copy_that_is_no_store_of_ours(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(StoreError):
        SqliteOriginal(str(tmp_path)).open(str(tmp_path))
