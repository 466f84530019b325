"""A copy of the database while commits go on, in pieces, on whatever thread asks; and the copy, to be read.

    read transaction on the state ──▶ SQLite's backup, PIECE pages at a time ──▶ store.db elsewhere
             │ what is committed meanwhile gathers in the write-ahead log behind it
             └──▶ end ──▶ the log's pages are moved, here and not on the commit thread

Pages in the write-ahead log have no checksum yet: cksumvfs makes one when a page is written into a database that has
them. So the copy is made such a database first; else it would hold pages that nobody can read (seen with SQLite 3.53).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Protocol, cast
from urllib.parse import quote

import apsw

from openk_daemon.store.database import (
    CHECKSUM_BYTES,
    FILE,
    FORMAT,
    MARK,
    PAGE,
    Connection,
    close_all,
    fetch,
    load_checksums,
    translate,
    unpack_entries,
)
from openk_daemon.store.seam import Damaged, Foreign, StoreError

PIECE: Final = 256
"""Pages in one go, 1 MiB."""
SYNCED: Final = 8
"""Pieces between two syncs of the copy: what is dirty in memory must not pile up before the commits' own syncs."""
_ROWS: Final = 16
"""Rows of the log read at a time: of up to 1024 entries each."""
_OPERATIONS: Final = 1_000_000
"""Of SQLite's between two looks whether to go on: some 10 ms."""
_MOVES: Final = 4
"""Times that the write-ahead log is moved at the end: commits go on meanwhile."""
_NEARLY: Final = 1000
"""Frames that may stay in it: the commit thread's next round."""

Piece = Callable[[int, int], None]


class _Backup(Protocol):
    def step(self, pages: int, /) -> bool: ...

    def finish(self) -> None: ...

    @property
    def page_count(self) -> int: ...

    @property
    def remaining(self) -> int: ...


class _Copying(Connection, Protocol):
    def backup(self, database: str, source: Connection, name: str, /) -> _Backup: ...

    def set_progress_handler(self, handler: Callable[[], bool] | None, operations: int, /) -> None: ...


class SqliteOriginal:
    """The database in a state folder, as something that can be copied (`backup.seam.Original`)."""

    beside = (f"{FILE}-wal", f"{FILE}-shm")
    """What lies beside it while it is open, and after a crash."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FILE)

    def bytes(self) -> int:
        """About how large a copy is."""
        return os.stat(self._path).st_size

    def gathered(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return 0

    def copy(self, into: str, piece: Piece) -> str:
        """Copy what is committed now into the folder `into`, durable; the name of the file. `piece` is called with the
        bytes that are copied and those of all after each piece; what it raises ends the copying. Raises StoreError."""
        opened: list[Connection] = []
        target = os.path.join(into, FILE)
        try:
            load_checksums()
            source = _connect(self._path, apsw.SQLITE_OPEN_READWRITE, opened)
            copy = _make(target, opened)
            source.execute("BEGIN")
            fetch(source, "SELECT 1 FROM log LIMIT 1")  # from here on `source` sees this moment
            _copy(source, copy, target, piece)
            source.execute("COMMIT")
            copy.close()
            _move_log(source)
        except apsw.Error as error:
            raise translate(error) from error
        finally:
            close_all(opened)
        return FILE

    def open(self, folder: str) -> SqliteCopy:
        """The copy in `folder`, to be read. Whoever opens it closes it. Raises StoreError."""
        return SqliteCopy(os.path.join(folder, FILE))


def _connect(path: str, flags: int, opened: list[Connection]) -> _Copying:
    made = cast("_Copying", apsw.Connection(path, flags=flags, vfs="cksmvfs"))
    opened.append(made)
    made.set_busy_timeout(1000)
    made.pragma("temp_store", 2)
    return made


def _make(path: str, opened: list[Connection]) -> _Copying:
    """An empty database with page checksums. It needs no journal: half of it is thrown away, never mended."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.close(descriptor)
    copy = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW, opened)
    copy.pragma("journal_mode", "off")
    copy.pragma("synchronous", "off")
    copy.pragma("locking_mode", "exclusive")
    copy.pragma("cache_size", -2048)
    copy.reserve_bytes(reserve=CHECKSUM_BYTES)
    copy.execute("CREATE TABLE first (page)")
    return copy


def _copy(source: Connection, copy: _Copying, target: str, piece: Piece) -> None:
    descriptor = os.open(target, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        backup = copy.backup("main", source, "main")
        try:
            pieces = 0
            while not backup.step(PIECE):
                pieces += 1
                if pieces % SYNCED == 0:
                    os.fdatasync(descriptor)
                piece((backup.page_count - backup.remaining) * PAGE, backup.page_count * PAGE)
        finally:
            backup.finish()
        os.fsync(descriptor)
        # So that whoever reads the copy now reads what the disk has, and not what memory remembers.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _move_log(source: Connection) -> None:
    """Move what gathered in the write-ahead log into the database: done by the commit thread at once it would hold up
    commits. A failure leaves it to that thread all the same."""
    for _ in range(_MOVES):
        try:
            frames, moved = source.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            time.sleep(0.01)  # the commit thread is at it
            continue
        if frames - moved < _NEARLY:
            return


class SqliteCopy:
    """A copy that nobody writes to (`backup.seam.Copy`). One thread at a time."""

    def __init__(self, path: str) -> None:
        """Raises StoreError."""
        self._opened: list[Connection] = []
        load_checksums()
        try:
            # Immutable: no lock, no write-ahead log beside it, and nothing is written whatever the header says.
            name = f"file:{quote(os.path.abspath(path))}?immutable=1"
            self._connection = _connect(name, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, self._opened)
            self._look(path)
        except apsw.Error as error:
            close_all(self._opened)
            raise translate(error) from error
        except StoreError:
            close_all(self._opened)
            raise

    def _look(self, path: str) -> None:
        if self._connection.pragma("application_id") != MARK:
            raise Foreign(f"{path} is not a store of openk")
        form = self._connection.pragma("user_version")
        if form != FORMAT:
            raise Foreign(f"{path} has store format {form}, and this openk has format {FORMAT}: use the openk it is of")
        if str(self._connection.pragma("checksum_verification")) != "1":
            raise Damaged(f"{path} has no page checksums")

    def check(self, going_on: Callable[[], None]) -> None:
        """Read every page, and see that they belong together. `going_on` is called now and then; what it raises ends
        this. Raises StoreError."""
        raised: list[Exception] = []

        def interrupt() -> bool:
            try:
                going_on()
            except Exception as error:  # noqa: BLE001 - handed on below: SQLite would only say that it was interrupted
                raised.append(error)
            return bool(raised)

        self._connection.set_progress_handler(interrupt, _OPERATIONS)
        try:
            found = fetch(self._connection, "PRAGMA quick_check(1)")
        except apsw.InterruptError as error:
            raise (raised or [error])[0] from None
        except apsw.Error as error:
            raise translate(error) from error
        finally:
            self._connection.set_progress_handler(None, _OPERATIONS)
        if found != [("ok",)]:
            first = str(found[0][0] if found else "nothing was found").replace("\n", " ")[:200]
            raise Damaged(f"the database is damaged ({first})")

    def groups(self) -> Iterator[Sequence[bytes]]:
        """The entries of the log from the first on, as they were committed together. Raises StoreError where one is
        missing."""
        expected = 0
        text = "SELECT first, count, data FROM log WHERE first >= ? ORDER BY first LIMIT ?"
        while True:
            try:
                rows = fetch(self._connection, text, (expected, _ROWS))
            except apsw.Error as error:
                raise translate(error) from error
            for first, count, data in rows:
                if first != expected:
                    raise Damaged(f"entry {expected} of the log is missing")
                expected += count
                yield unpack_entries(count, data)
            if not rows:
                return

    def close(self) -> None:
        """Idempotent."""
        close_all(self._opened)
        self._opened = []

    def __enter__(self) -> SqliteCopy:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
