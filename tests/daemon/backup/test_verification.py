"""What is not whole, or not what it says, is never called a backup that could be restored."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.backup import manifest
from openk_daemon.backup.manifest import Manifest
from openk_daemon.backup.seam import BackupDamaged
from openk_daemon.backup.verification import verify
from openk_daemon.store.copying import SqliteOriginal
from tests.daemon.audit.logs import run_state
from tests.daemon.backup.states import SIZE, fill, make


@pytest.fixture
async def backup(tmp_path: Path) -> Path:
    made = make(tmp_path, await fill(tmp_path / "state"))
    return tmp_path / "backups" / made.backup.name


def look(folder: Path) -> None:
    verify(folder, SqliteOriginal(str(folder)))


def forge(folder: Path) -> None:
    """Let backup.json tell of the files as they are now: only what nobody can forge is left."""
    found = json.loads((folder / manifest.FILE).read_text())
    for name in found["sha256"]:
        found["sha256"][name], size = manifest.hash_file(folder / name, lambda: None)
        found["bytes"] = size if name == found["store"] else found["bytes"]
    (folder / manifest.FILE).write_text(json.dumps(found))


@pytest.mark.parametrize("forged", [False, True])
async def test_any_bit_that_is_flipped_is_noticed(backup: Path, forged: bool) -> None:
    chance = random.Random(7)
    content = (backup / "store.db").read_bytes()
    for _ in range(20):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (backup / "store.db").write_bytes(changed)
        if forged:
            forge(backup)
        with pytest.raises(BackupDamaged):
            look(backup)
    (backup / "store.db").write_bytes(content)
    if forged:
        forge(backup)
    look(backup)


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("left", [0, 100, 4096, 0.5, 0.99])
async def test_a_store_that_was_cut_short(backup: Path, left: float, forged: bool) -> None:
    content = (backup / "store.db").read_bytes()
    (backup / "store.db").write_bytes(content[: int(left * len(content)) if left < 1 and left else int(left)])
    if forged:
        forge(backup)
    with pytest.raises(BackupDamaged):
        look(backup)


async def test_two_pages_that_were_swapped(backup: Path) -> None:
    """Each has its checksum still, which does not say where it belongs."""
    content = (backup / "store.db").read_bytes()
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    pages[-1], pages[-2] = pages[-2], pages[-1]
    (backup / "store.db").write_bytes(b"".join(pages))
    forge(backup)
    with pytest.raises(BackupDamaged):
        look(backup)


async def test_a_store_of_another_time_or_another_log(backup: Path, tmp_path: Path) -> None:
    async with run_state(str(tmp_path / "other")) as running:
        await running.fill(SIZE)
    (backup / "store.db").write_bytes((tmp_path / "other" / "store.db").read_bytes())
    forge(backup)
    with pytest.raises(BackupDamaged, match="the signed head does not fit"):
        look(backup)


async def test_a_head_that_is_ahead(backup: Path, tmp_path: Path) -> None:
    async with run_state(str(tmp_path / "other")) as running:
        await running.fill(SIZE + 1)
        (backup / "checkpoint").write_text((await running.head()).checkpoint)
    forge(backup)
    with pytest.raises(BackupDamaged, match=f"entry {SIZE} is the first that is missing"):
        look(backup)


@pytest.mark.parametrize("name", ["store.db", "checkpoint", "backup.json"])
async def test_a_file_that_is_missing(backup: Path, name: str) -> None:
    (backup / name).unlink()
    with pytest.raises(BackupDamaged, match=name):
        look(backup)


@pytest.mark.parametrize("head", [b"", b"\xff\xfe", b"o\n700\n", b"o\n700\nAAAA\n\n", b"x" * 5000])
async def test_a_head_that_is_none(backup: Path, head: bytes) -> None:
    (backup / "checkpoint").write_bytes(head)
    forge(backup)
    with pytest.raises(BackupDamaged):
        look(backup)


async def test_numbers_that_are_not_those_of_the_store(backup: Path) -> None:
    found = json.loads((backup / manifest.FILE).read_text())
    (backup / manifest.FILE).write_text(json.dumps(found | {"entries": SIZE + 1}))
    with pytest.raises(BackupDamaged, match="tells of"):
        look(backup)


async def test_another_format_names_the_remedy(backup: Path) -> None:
    found = json.loads((backup / manifest.FILE).read_text())
    (backup / manifest.FILE).write_text(json.dumps(found | {"format": 2}))
    with pytest.raises(BackupDamaged, match="use the openk that made it"):
        look(backup)


HASH = st.text("0123456789abcdef", min_size=64, max_size=64)
MANIFESTS = st.builds(
    Manifest,
    format=st.just(1),
    openk=st.text(max_size=8),
    made=st.integers(0, 1 << 62),
    entries=st.integers(1 << 40, 1 << 62),
    signed=st.integers(0, 1 << 40),
    store=st.just("store.db"),
    bytes=st.integers(0, 1 << 62),
    sha256=st.fixed_dictionaries({"store.db": HASH, "checkpoint": HASH}),
)


@given(MANIFESTS)
def test_what_was_written_is_read(found: Manifest) -> None:
    assert manifest.decode(manifest.encode(found)) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_else_lies_there_is_refused(content: bytes) -> None:
    with pytest.raises(BackupDamaged):
        manifest.decode(content)


def test_what_is_no_text_is_refused() -> None:
    """Found by fuzzing: it came out as UnicodeDecodeError, and would have ended the daemon that lists its backups."""
    with pytest.raises(BackupDamaged):
        manifest.decode(b'{"format": 1, "openk": "\xeb"}')


@given(MANIFESTS, st.sampled_from(Manifest.__struct_fields__), JSON)
def test_a_field_that_is_another_is_refused_or_read(found: Manifest, name: str, value: object) -> None:
    told = msgspec.to_builtins(found) | {name: value}
    try:
        read = manifest.decode(json.dumps(told).encode())
    except BackupDamaged:
        return
    assert getattr(read, name) == value
    assert read.store == "store.db"


@given(st.integers(0, 4_000_000_000), st.integers(0, 1 << 62))
def test_names_are_known_again(made: int, entries: int) -> None:
    assert manifest.NAME.fullmatch(manifest.name_of(made, entries))
