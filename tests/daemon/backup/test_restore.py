"""A backup that is put back serves; what was there is kept; and nothing is begun that could not be finished."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path

import pytest

import openk_tools.audit_verify as verifier
from openk_daemon.backup import restore as restore_module
from openk_daemon.backup.restore import Restored, RestoreRefused, restore
from openk_daemon.backup.seam import BackupDamaged
from openk_daemon.store.copying import SqliteOriginal
from openk_daemon.store.folder import FolderLock, FolderRefused
from openk_daemon.store.sqlite import SqliteStore
from tests.daemon.audit.logs import KEY, ORIGIN, run_state, spki_of
from tests.daemon.backup.states import RECORDS, SIZE, fill, make
from tests.daemon.store.answers import answer

PUBLIC = verifier.read_public_key(b64encode(spki_of(KEY)).decode())


@pytest.fixture
async def backup(tmp_path: Path) -> Path:
    made = make(tmp_path, await fill(tmp_path / "state"))
    return tmp_path / "backups" / made.backup.name


def put_back(backup: Path, state: Path, *, replace: bool = False) -> Restored:
    return restore(backup, state, SqliteOriginal(str(state)), replace=replace)


def empty(tmp_path: Path) -> Path:
    state = tmp_path / "restored"
    state.mkdir(mode=0o700)
    return state


async def test_a_restored_state_starts_and_a_stranger_verifies_its_log(backup: Path, tmp_path: Path) -> None:
    state = empty(tmp_path)
    restored = put_back(backup, state)
    assert restored.aside is None
    assert restored.verified.manifest.entries == SIZE
    assert sorted(os.listdir(state)) == ["audit", "lock", "store.db"]
    report = verifier.verify_folder(str(state / "audit"), PUBLIC, ORIGIN)
    assert report.head.size == SIZE - 9
    async with run_state(str(state)) as running:
        assert (running.recovery.size, running.recovery.unsigned) == (SIZE, 9)
        assert running.recovery.disagreements == ()
        assert len(await answer(running.store.query("key"))) == RECORDS
        await running.fill(300)
    assert verifier.verify_folder(str(state / "audit"), PUBLIC, ORIGIN).head.size == SIZE + 301


async def test_the_published_log_is_the_same_to_the_byte(backup: Path, tmp_path: Path) -> None:
    state = empty(tmp_path)
    put_back(backup, state)
    text = (backup / "checkpoint").read_text()
    async with run_state(str(tmp_path / "state")):  # signs what was unsigned, and keeps the older tiles until it stops
        pass
    full = [tile for tile in (state / "audit" / "tile").rglob("???") if tile.parent.suffix != ".p"]
    assert len(full) >= 4
    for tile in full:
        assert tile.read_bytes() == (tmp_path / "state" / tile.relative_to(state)).read_bytes()
    assert (state / "audit" / "checkpoint").read_text() == text


async def test_a_store_that_is_there_is_not_touched_unless_told_to(backup: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(RestoreRefused, match="--replace"):
        put_back(backup, state)
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file() and path.name != "lock"} == before
    aside = put_back(backup, state, replace=True).aside
    assert aside is not None
    for path, content in before.items():
        assert (aside / path.relative_to(state)).read_bytes() == content
    async with run_state(str(state)) as running:
        assert running.recovery.disagreements == ()


async def test_a_daemon_that_runs_is_not_disturbed(backup: Path, tmp_path: Path) -> None:
    async with run_state(str(tmp_path / "state")) as running:
        await running.fill(3)
        with pytest.raises(RestoreRefused, match="another openkd"):
            put_back(backup, tmp_path / "state", replace=True)


async def test_a_damaged_backup_changes_nothing(backup: Path, tmp_path: Path) -> None:
    content = bytearray((backup / "store.db").read_bytes())
    content[5000] ^= 1
    (backup / "store.db").write_bytes(content)
    state = empty(tmp_path)
    with pytest.raises(BackupDamaged):
        put_back(backup, state)
    assert os.listdir(state) == ["lock"]


@pytest.mark.parametrize("step", ["_set_aside", "_take_places"])
async def test_one_that_is_interrupted_keeps_the_daemon_from_starting_until_it_is_done_again(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    state = tmp_path / "state"

    def interrupt(*_arguments: object) -> None:
        raise OSError(5, "an exercise")

    with monkeypatch.context() as patched:
        patched.setattr(restore_module, step, interrupt)
        with pytest.raises(OSError, match="an exercise"):
            put_back(backup, state, replace=True)
    with pytest.raises(FolderRefused, match="interrupted"):
        SqliteStore(str(state))
    put_back(backup, state, replace=True)
    async with run_state(str(state)) as running:
        assert running.recovery.size == SIZE


async def test_a_folder_that_is_not_fit(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused, match="install -d"):
        put_back(backup, tmp_path / "missing")
    state = empty(tmp_path)
    state.chmod(0o770)
    with pytest.raises(RestoreRefused, match="chmod"):
        put_back(backup, state)


async def test_what_root_restores_is_given_to_whose_folder_it_is(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = empty(tmp_path)
    given: dict[str, tuple[int, int]] = {}

    def chown(path: str, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        assert not follow_symlinks
        given[str(path)] = (uid, gid)

    monkeypatch.setattr(restore_module, "_owner", lambda _state: (12_345, 12_346))
    monkeypatch.setattr(os, "chown", chown)
    put_back(backup, state)
    assert set(given.values()) == {(12_345, 12_346)}
    below = {str(path.relative_to(state)) for path in state.rglob("*")}
    assert below <= {path.partition("/restored/")[2].partition("/")[2] for path in given} | {"lock"}


async def test_a_link_in_a_backup_is_not_followed(backup: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    (backup / "checkpoint").unlink()
    (backup / "checkpoint").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        put_back(backup, empty(tmp_path))


async def test_nobody_starts_meanwhile(backup: Path, tmp_path: Path) -> None:
    state = empty(tmp_path)
    lock = FolderLock(str(state))
    with pytest.raises(RestoreRefused, match="another openkd"):
        put_back(backup, state)
    lock.release()
    put_back(backup, state)
