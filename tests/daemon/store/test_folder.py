"""Which state folders are taken, and that one daemon alone has one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from openk_daemon.store.database import FILE
from openk_daemon.store.folder import FolderRefused, check_folder
from openk_daemon.store.seam import Damaged, Foreign
from openk_daemon.store.sqlite import SqliteStore


def test_a_private_folder_is_taken(folder: str) -> None:
    check_folder(folder)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_refused(folder: str, mode: int) -> None:
    os.chmod(folder, mode)
    with pytest.raises(FolderRefused, match="chmod go-w"):
        SqliteStore(folder)
    assert os.listdir(folder) == []


def test_a_folder_below_one_that_others_can_write_is_refused(folder: str) -> None:
    os.chmod(os.path.dirname(folder), 0o777)
    with pytest.raises(FolderRefused, match="replace the state folder"):
        SqliteStore(folder)


def test_a_missing_folder_is_refused_and_not_made(folder: str) -> None:
    missing = os.path.join(folder, "nowhere")
    with pytest.raises(FolderRefused, match="does not exist"):
        SqliteStore(missing)
    assert not os.path.exists(missing)


def test_a_file_and_a_symbolic_link_are_no_folder(folder: str) -> None:
    file = os.path.join(folder, "file")
    Path(file).write_bytes(b"")
    link = os.path.join(folder, "link")
    os.symlink(folder, link)
    for path in (file, link):
        with pytest.raises(FolderRefused, match="not a folder"):
            check_folder(path)


def test_a_folder_of_somebody_else_is_refused(folder: str) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
        with pytest.raises(FolderRefused, match="belongs to user 12345"):
            check_folder(folder)
    else:
        with pytest.raises(FolderRefused, match="belongs to user 0"):
            check_folder("/usr")


def test_a_folder_without_write_permission_is_refused_to_ordinary_users(folder: str) -> None:
    os.chmod(folder, 0o500)
    program = (
        "import os, sys\n"
        "from openk_daemon.store.folder import check_folder, FolderRefused\n"
        "if os.geteuid() == 0:\n"
        "    os.chown(sys.argv[1], 12345, 12345); os.setuid(12345)\n"
        "try:\n    check_folder(sys.argv[1])\nexcept FolderRefused as error:\n    print(error)\n"
    )
    for path in Path(folder).parents:  # the tests' own folders are private; the child must be able to get there
        if os.stat(path).st_uid == os.geteuid() and not os.stat(path).st_mode & 0o001:
            os.chmod(path, 0o711)
    child = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert "cannot be written" in child.stdout


def test_a_second_daemon_on_the_same_state_is_told_who_has_it(folder: str) -> None:
    store = SqliteStore(folder)
    try:
        with pytest.raises(Foreign, match=f"process {os.getpid()}"):
            SqliteStore(folder)
    finally:
        store.close()
    SqliteStore(folder).close()


def test_files_are_private(folder: str) -> None:
    store = SqliteStore(folder)
    try:
        for name in os.listdir(folder):
            assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0, name
    finally:
        store.close()


@pytest.mark.parametrize(
    ("pragma", "named"), [("user_version", "format 7"), ("application_id", "not a store of openk")]
)
def test_a_store_of_another_version_or_program_is_foreign(folder: str, pragma: str, named: str) -> None:
    SqliteStore(folder).close()
    database = apsw.Connection(os.path.join(folder, FILE))
    database.pragma(pragma, 7)
    database.close()
    with pytest.raises(Foreign, match=named):
        SqliteStore(folder)


def test_what_is_no_database_is_damaged_and_left_alone(folder: str) -> None:
    Path(folder, FILE).write_bytes(b"these are not the bytes of a database" * 200)
    with pytest.raises(Damaged):
        SqliteStore(folder)
    assert Path(folder, FILE).read_bytes().startswith(b"these")


def test_a_refused_start_lets_go_of_the_folder(folder: str) -> None:
    Path(folder, FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(Damaged):
        SqliteStore(folder)
    os.unlink(os.path.join(folder, FILE))
    SqliteStore(folder).close()


def test_a_commit_is_synced_before_it_is_acknowledged(folder: str) -> None:
    """A killed process cannot show that; the settings can."""
    store = SqliteStore(folder)
    try:
        writer = store._committer._writer
        assert writer.pragma("journal_mode") == "wal"
        assert writer.pragma("synchronous") == 2
    finally:
        store.close()
