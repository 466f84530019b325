"""The SQLite file: its tables, its marks, how it is opened, and what its errors mean.

    store.db    application_id "opkS", user_version = FORMAT, 8 reserved bytes a page (checksums)
    ├─ record   (kind, id) → version, body
    ├─ change   (sequence, part) → kind, id, version, deleted       one sequence a unit that wrote
    └─ log      first → count, data                                 one row a group of entries

    log.data:   count u32 little-endian lengths │ the entries, one after the other

SQLite's own page layout has no checksum: the cksumvfs extension that comes with apsw puts one in the
reserved bytes of each page, so that a flipped bit is an error instead of an answer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from struct import calcsize, pack, unpack_from
from typing import Any, Final, Protocol, cast

import apsw
import apsw.sqlite_extra

from openk_daemon.store.seam import Damaged, Foreign, Full, StoreError

FILE: Final = "store.db"
FORMAT: Final = 1
MARK: Final = int.from_bytes(b"opkS", "big")
CHECKSUM_BYTES: Final = 8
PAGE: Final = 4096
"""Bytes: SQLite's own choice."""
LOG_AHEAD: Final = 4 << 20
"""Bytes the write-ahead log has from the start: overwriting a file is half the price of making it grow."""
LOG_MOST: Final = 16 << 20
"""Bytes it is cut down to when it starts over: it grows beyond that while a backup copies."""

Row = tuple[Any, ...]
"""Any: what a column holds is fixed by the STRICT tables below, and not known to the type checker."""


class Cursor(Protocol):
    def fetchall(self) -> list[Row]: ...


class Connection(Protocol):
    """The part of apsw.Connection that is used here; its own annotations are not complete on this Python."""

    def execute(self, statements: str, bindings: Sequence[str | bytes | int | None] = ..., /) -> Cursor: ...

    def changes(self) -> int: ...

    def pragma(self, name: str, value: str | int = ..., /) -> str | int | None: ...

    def reserve_bytes(self, schema: str | None = ..., reserve: int = ...) -> int: ...

    def set_busy_timeout(self, milliseconds: int, /) -> None: ...

    def config(self, op: int, value: int, /) -> int: ...

    def wal_checkpoint(self, dbname: str | None = ..., mode: int = ...) -> tuple[int, int]: ...

    @property
    def in_transaction(self) -> bool: ...

    def close(self) -> None: ...


def fetch(connection: Connection, text: str, bindings: Sequence[str | bytes | int] = ()) -> list[Row]:
    """All rows at once: a statement left half-read would keep the write-ahead log from being reset."""
    return connection.execute(text, bindings).fetchall()


_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE record (kind TEXT NOT NULL, id BLOB NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
                     PRIMARY KEY (kind, id)) WITHOUT ROWID, STRICT;
CREATE TABLE change (sequence INTEGER NOT NULL, part INTEGER NOT NULL, kind TEXT NOT NULL, id BLOB NOT NULL,
                     version INTEGER NOT NULL, deleted INTEGER NOT NULL,
                     PRIMARY KEY (sequence, part)) WITHOUT ROWID, STRICT;
CREATE TABLE log (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
PRAGMA application_id = {MARK};
PRAGMA user_version = {FORMAT};
COMMIT;
"""


def open_database(folder: str) -> tuple[Connection, Connection]:
    """The writing and the reading connection of the store in `folder`, which is made when it is not there.

    The caller holds the folder's lock, and closes both. Raises Foreign, Damaged or Full."""
    path = os.path.join(folder, FILE)
    load_checksums()
    opened: list[Connection] = []
    try:
        writer = _connect(path, opened, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        os.chmod(path, 0o600)
        _prepare(writer, path)
        _grow_log(path)
        reader = _connect(path, opened, apsw.SQLITE_OPEN_READWRITE)
        reader.pragma("query_only", 1)
        if str(reader.pragma("checksum_verification")) != "1":
            raise Damaged(f"{path} has lost its page checksums: restore it from a backup")
    except apsw.Error as error:
        close_all(opened)
        raise translate(error) from error
    except StoreError:
        close_all(opened)
        raise
    return writer, reader


def close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


def load_checksums() -> None:
    """Registers the VFS for the whole process, once; it leaves alone every database without reserved bytes. It is code:
    a process that is confined cannot load it any more."""
    if "cksmvfs" not in apsw.vfs_names():
        door = apsw.Connection(":memory:")
        apsw.sqlite_extra.load(door, "cksumvfs")
        door.close()


def _connect(path: str, opened: list[Connection], flags: int) -> Connection:
    made = apsw.Connection(path, flags=flags | apsw.SQLITE_OPEN_NOFOLLOW, vfs="cksmvfs")
    connection = cast("Connection", made)
    opened.append(connection)
    connection.set_busy_timeout(1000)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    # In memory: a large savepoint would spill into /var/tmp, which a confined daemon cannot open.
    connection.pragma("temp_store", 2)
    return connection


def _prepare(writer: Connection, path: str) -> None:
    mark = writer.pragma("application_id")
    form = writer.pragma("user_version")
    fresh = not fetch(writer, "SELECT 1 FROM sqlite_schema LIMIT 1")
    if fresh and mark == 0 and form == 0:
        writer.reserve_bytes(reserve=CHECKSUM_BYTES)
    elif mark != MARK:
        raise Foreign(f"{path} is not a store of openk: name another state folder")
    elif form != FORMAT:
        raise Foreign(f"{path} has store format {form}, and this openk has format {FORMAT}: run the openk that made it")
    writer.pragma("journal_mode", "wal")
    writer.pragma("synchronous", "full")
    writer.pragma("wal_autocheckpoint", 0)  # the commit thread does it, after it has answered
    writer.pragma("journal_size_limit", LOG_MOST)
    if fresh:
        writer.execute(_TABLES)


def _grow_log(path: str) -> None:
    """Frames beyond the valid ones are ignored by SQLite, so zeros there do no harm."""
    descriptor = os.open(path + "-wal", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        with suppress(OSError):  # a disk this full will say so at the first commit; this is for speed only
            if size < LOG_AHEAD:
                os.pwrite(descriptor, bytes(LOG_AHEAD - size), size)
                os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack_entries(entries: list[bytes]) -> bytes:
    return pack(f"<{len(entries)}I", *map(len, entries)) + b"".join(entries)


def unpack_entries(count: int, data: bytes, start: int = 0, stop: int | None = None) -> list[bytes]:
    """Entries from `start` up to `stop` of a row. Raises Damaged when lengths and bytes do not fit."""
    form = f"<{count}I"
    at = calcsize(form)
    if count < 1 or at > len(data):
        raise Damaged("a row of the log is cut short")
    lengths: tuple[int, ...] = unpack_from(form, data)
    if at + sum(lengths) != len(data):
        raise Damaged("a row of the log is cut short")
    at += sum(lengths[:start])
    entries: list[bytes] = []
    for length in lengths[start:stop]:
        entries.append(data[at : at + length])
        at += length
    return entries


def translate(error: apsw.Error) -> StoreError:
    """What SQLite's error means for whoever asked. The text is for the log."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, apsw.FullError):
        return Full(f"the disk is full ({text})")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return Damaged(f"the database is damaged ({text})")
    if isinstance(error, apsw.IOError):
        detail: int = getattr(error, "extendedresult", 0)
        if detail in {apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_SHORT_READ}:
            return Damaged(f"a page of the database does not have its checksum ({text})")
        if detail in {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_TRUNCATE}:
            return Full(f"the disk takes no more: full, over quota, or over a size limit ({text})")
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return Foreign(f"another program uses the database ({text})")
    return StoreError(f"the database cannot be used ({text})")
