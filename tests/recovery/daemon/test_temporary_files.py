"""SQLite wants no temporary file, however much one unit changes: the confined daemon may not make one in /var/tmp, and
the commit would fail with a database that "cannot be opened" (seen once in some thousand writes, under load)."""

from __future__ import annotations

import os
from pathlib import Path

from openk_daemon.store.database import close_all, open_database

PAGES = 200


def opened() -> set[str]:
    """What this process has open."""
    return {os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)}


def test_a_large_savepoint_stays_in_memory(tmp_path: Path) -> None:
    writer, reader = open_database(str(tmp_path))
    try:
        for number in range(PAGES):
            writer.execute("INSERT INTO record VALUES ('k', ?, 1, ?)", (number.to_bytes(2), bytes(3000)))
        before = opened()
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("SAVEPOINT unit")
        writer.execute("UPDATE record SET version = 2, body = ?", (bytes(3001),))
        assert opened() <= before
        writer.execute("ROLLBACK")
    finally:
        close_all([writer, reader])
