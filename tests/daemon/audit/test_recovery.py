"""What a start finds out about the log it is given: crashes, and every way to change history."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openk_daemon.audit import ledger as ledger_module
from openk_daemon.audit.recovery import find_disagreements
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable
from openk_daemon.audit.tiles import Tiles, bundle_file
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Record, StoreError, Write
from openk_hsm.errors import Unavailable
from openk_hsm.pending import failed
from tests.daemon.audit.logs import KINDS, SLOW, Signer, memory_with, note_key_of, run_ledger
from tests.daemon.store.answers import answer, commit

SIZE = 600


async def make(folder: Path, size: int = SIZE) -> list[bytes]:
    """A log that was stopped properly; its entries."""
    store = MemoryStore()
    async with run_ledger(store, str(folder)) as running:
        await running.fill(size)
    entries = await answer(store.entries(0, size))
    return list(entries)


async def start(entries: list[bytes], folder: Path, depth: int = 1 << 20) -> None:
    async with run_ledger(memory_with(entries), str(folder), replace(SLOW, depth=depth)):
        pass


async def test_a_log_that_was_stopped_properly_starts_without_remark(tmp_path: Path) -> None:
    entries = await make(tmp_path)
    async with run_ledger(memory_with(entries), str(tmp_path)) as running:
        assert (running.recovery.size, running.recovery.unsigned, running.recovery.disagreements) == (SIZE, 0, ())
        assert running.store.log_size() == SIZE
        await running.fill(10)
        assert (await running.prove(SIZE + 9)).size == SIZE + 10


@pytest.mark.parametrize(("signed", "unsigned"), [(0, 1), (0, 300), (5, 3), (256, 256), (300, 500)])
async def test_what_a_crash_left_unsigned_is_signed_with_a_record_that_says_so(
    tmp_path: Path, signed: int, unsigned: int
) -> None:
    store = MemoryStore()
    async with run_ledger(store, str(tmp_path), crash=True) as running:
        await running.fill(signed)
        await running.head()
        await running.fill(unsigned)
    async with run_ledger(store, str(tmp_path), crash=True) as running:
        assert running.recovery.unsigned == unsigned
        assert running.ledger.signed_size == signed + unsigned + 1
        record = json.loads((await answer(running.ledger.tail(signed + unsigned, 1)))[0])
        assert record.items() >= {"event": "audit.recovered", "unsigned": unsigned, "first": signed}.items()
    async with run_ledger(store, str(tmp_path)) as running:
        assert running.recovery.unsigned == 0


async def test_tiles_of_a_head_that_a_crash_prevented_do_no_harm(tmp_path: Path) -> None:
    store = MemoryStore()
    signer = Signer()
    async with run_ledger(store, str(tmp_path), signer=signer, crash=True) as running:
        await running.fill(10)
        await running.head()
        signer.error = Unavailable("unplugged")
        await running.fill(500)
        assert (await running.head()).signed_size == 10
    async with run_ledger(store, str(tmp_path)) as running:
        assert running.recovery.unsigned == 500
        assert (await running.prove(0)).size == 511


def flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


EDITS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "flip": lambda entries, at: [*entries[:at], flip(entries[at]), *entries[at + 1 :]],
    "replace": lambda entries, at: [*entries[:at], b'{"forged":1}', *entries[at + 1 :]],
    "delete": lambda entries, at: [*entries[:at], *entries[at + 1 :], b'{"filler":1}'],
    "insert": lambda entries, at: [*entries[:at], b'{"forged":1}', *entries[at:]],
    "swap": lambda entries, at: [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]],
}


@pytest.mark.parametrize("edit", list(EDITS))
@pytest.mark.parametrize("at", [0, 1, 255, 256, 511, 512, SIZE - 2])
async def test_an_entry_that_was_changed_in_the_store_is_named(tmp_path: Path, edit: str, at: int) -> None:
    entries = await make(tmp_path)
    with pytest.raises(AuditDamaged, match=rf"^entry {at} of the log was changed"):
        await start(EDITS[edit](entries, at), tmp_path)


async def test_an_entry_that_was_changed_in_store_and_copy_alike_is_named(tmp_path: Path) -> None:
    entries = await make(tmp_path, 5)
    forged = EDITS["replace"](entries, 3)
    Tiles(str(tmp_path)).write([bundle_file(0, forged)])
    with pytest.raises(AuditDamaged, match=r"^entry 3 of the log was changed"):
        await start(forged, tmp_path)


@pytest.mark.parametrize("left", [0, 1, 256, SIZE - 1])
async def test_a_log_that_is_shorter_than_was_signed_is_named(tmp_path: Path, left: int) -> None:
    entries = await make(tmp_path)
    with pytest.raises(AuditDamaged, match=rf"entry {left} is the first that is missing"):
        await start(entries[:left], tmp_path)


@pytest.mark.parametrize(
    "tile", ["0/000", "0/001", "0/002.p/88", "1/000.p/2", "entries/000", "entries/001", "entries/002.p/88"]
)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
async def test_a_tile_that_was_changed_is_named(tmp_path: Path, tile: str, harm: str) -> None:
    entries = await make(tmp_path)
    path = tmp_path / "tile" / tile
    content = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(flip(content, 40) if harm == "flip" else content[:-40])
    with pytest.raises(AuditDamaged) as caught:
        await start(entries, tmp_path)
    assert f"tile/{tile}" in str(caught.value)


async def test_entries_and_tiles_changed_in_harmony_do_not_fit_the_signature(tmp_path: Path) -> None:
    await make(tmp_path / "true", 5)
    entries = await make(tmp_path / "false", 5)
    shutil.copy(tmp_path / "true/checkpoint", tmp_path / "false/checkpoint")
    with pytest.raises(AuditDamaged, match="not with the signed checkpoint"):
        await start(entries, tmp_path / "false")


async def test_without_its_checkpoint_a_log_is_not_believed(tmp_path: Path) -> None:
    entries = await make(tmp_path)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(AuditDamaged, match="`checkpoint`"):
        await start(entries, tmp_path)


async def test_a_checkpoint_by_another_key_is_not_believed(tmp_path: Path) -> None:
    entries = await make(tmp_path)
    other = Ed25519PrivateKey.generate()
    with pytest.raises(AuditDamaged, match="not signed by this audit key"):
        async with run_ledger(memory_with(entries), str(tmp_path), signer=Signer(other), key=note_key_of(other)):
            raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
async def test_a_log_keeps_the_audit_key_it_began_with(tmp_path: Path, kind: str) -> None:
    """Whatever it is; one of another kind, on a token that learned a better one, does not go on with it."""
    key, store = KINDS[kind](), MemoryStore()
    async with run_ledger(store, str(tmp_path), signer=Signer(key), key=note_key_of(key)) as running:
        await running.fill(300)
    async with run_ledger(store, str(tmp_path), signer=Signer(key), key=note_key_of(key)) as running:
        await running.fill(3)
        assert (await running.head()).signed_size == 303
    for other in (make() for name, make in KINDS.items() if name != kind):
        with pytest.raises(AuditDamaged, match="not signed by this audit key"):
            async with run_ledger(store, str(tmp_path), signer=Signer(other), key=note_key_of(other)):
                raise AssertionError


async def test_an_old_checkpoint_makes_the_rest_unsigned_and_is_told(tmp_path: Path) -> None:
    """Rolling back the head alone hides nothing: the entries are there, and the record says from where on."""
    store = MemoryStore()
    async with run_ledger(store, str(tmp_path)) as running:
        await running.fill(300)
        await running.head()
        shutil.copytree(tmp_path, tmp_path.with_name("old"))
        await running.fill(10)
    async with run_ledger(store, str(tmp_path.with_name("old"))) as running:
        assert running.recovery.unsigned == 10


async def test_unsigned_entries_that_are_no_records_stop_the_start(tmp_path: Path) -> None:
    entries = await make(tmp_path)
    with pytest.raises(AuditDamaged, match=f"entry {SIZE}"):
        await start([*entries, b"not a record"], tmp_path)
    with pytest.raises(AuditDamaged, match=f"entry {SIZE}"):
        await start([*entries, b'{"writes":[7]}'], tmp_path)
    with pytest.raises(AuditDamaged, match=f"entry {SIZE}"):
        await start([*entries, b'{"writes":[' + b"[" * 65_000], tmp_path)


async def test_old_entries_are_examined_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "SWEEP_PAUSE", 0.001)
    entries = await make(tmp_path, 2000)
    entries[100] = flip(entries[100])
    async with run_ledger(memory_with(entries), str(tmp_path), replace(SLOW, depth=500)) as running:
        with trio.fail_after(10):
            while running.ledger.unavailable is None:  # noqa: ASYNC110 - what is waited for has no event
                await trio.sleep(0.005)
        assert "entry 100 " in running.ledger.unavailable
        with pytest.raises(AuditUnavailable, match="entry 100 "):
            await running.commit()


async def test_a_log_that_cannot_be_read_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = await make(tmp_path)
    monkeypatch.setattr(MemoryStore, "entries", lambda *_: failed(StoreError("a bad sector")))
    with pytest.raises(AuditDamaged, match="a bad sector"):
        await start(entries, tmp_path)


async def history(store: MemoryStore, folder: str) -> None:
    async with run_ledger(store, folder) as running:
        for name in (b"a", b"b", b"gone"):
            await running.commit(Write("key", name, 0, b"first of " + name))
        await running.commit(Write("key", b"a", 1, b"second of a"), Write("vault", b"v", 0, b""))
        await running.commit(Write("key", b"gone", 1, None))


def put(id_: bytes, version: int, body: bytes) -> Callable[[dict[bytes, Record]], object]:
    return lambda records: records.update({id_: Record("key", id_, version, body)})


TAMPERINGS: dict[str, tuple[Callable[[dict[bytes, Record]], object], bytes, str]] = {
    "edited": (put(b"b", 1, b"forged"), b"b", "body"),
    "rolled back": (put(b"a", 1, b"first of a"), b"a", "version 1 instead of 2"),
    "moved": (put(b"b", 1, b"first of gone"), b"b", "body"),
    "removed": (lambda records: records.pop(b"b"), b"b", "missing"),
    "brought back": (put(b"gone", 1, b"first of gone"), b"gone", "deleted"),
    "added": (put(b"new", 1, b""), b"new", "no entry"),
}


@pytest.mark.parametrize("tampering", list(TAMPERINGS))
async def test_a_record_that_does_not_agree_with_the_log_is_named(tmp_path: Path, tampering: str) -> None:
    store = MemoryStore()
    await history(store, str(tmp_path))
    assert await find_disagreements(store) == []
    change, id_, reason = TAMPERINGS[tampering]
    change(store._records["key"])
    store._order["key"] = sorted(store._records["key"])
    found = await find_disagreements(store)
    assert [(each.kind, each.id) for each in found] == [("key", id_)]
    assert reason in found[0].reason
    async with run_ledger(store, str(tmp_path)) as running:
        assert [each.id for each in running.recovery.disagreements] == [id_]
        told = json.loads((await answer(running.ledger.tail(5, 1)))[0])
        assert (told["event"], told["records"]) == ("audit.disagreement", 1)
        assert id_.hex() in told["named"]


LAST_WORD = {"edited": 1, "rolled back": 3, "moved": 1, "removed": 1, "brought back": 4, "added": -1}
"""The entry of `history` that says otherwise."""


@pytest.mark.parametrize("tampering", list(TAMPERINGS))
async def test_the_entry_that_says_otherwise_is_named(tmp_path: Path, tampering: str) -> None:
    store = MemoryStore()
    await history(store, str(tmp_path))
    change, id_, _ = TAMPERINGS[tampering]
    change(store._records["key"])
    store._order["key"] = sorted(store._records["key"])
    (found,) = await find_disagreements(store)
    assert (found.kind, found.id, found.entry) == ("key", id_, LAST_WORD[tampering])


async def test_a_log_that_is_not_read_from_its_beginning_blames_no_record_for_what_it_has_not_seen(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    await history(store, str(tmp_path))
    assert await find_disagreements(store, first=4) == [], "a and b were written before"
    put(b"b", 1, b"forged")(store._records["key"])
    assert await find_disagreements(store, first=4) == []
    assert [each.id for each in await find_disagreements(store, first=1)] == [b"b"]


async def test_records_and_entries_beyond_one_page_are_compared(tmp_path: Path) -> None:
    """Pages have 256; the last record of one page must not hide the first of the next."""
    store = MemoryStore()
    names = [b"%04d" % number for number in range(600)]
    async with run_ledger(store, str(tmp_path)) as running:
        for name in names:
            await running.commit(Write("key", name, 0, name))
    assert await find_disagreements(store) == []
    tampered = [names[at] for at in (0, 254, 255, 256, 257, 511, 512, 599)]
    for name in tampered:
        put(name, 1, b"forged")(store._records["key"])
    assert [(each.id, each.entry) for each in await find_disagreements(store)] == [
        (name, int(name)) for name in tampered
    ]


async def test_a_tile_whose_hash_above_it_was_changed_is_named_with_its_place(tmp_path: Path) -> None:
    entries = await make(tmp_path)
    path = tmp_path / "tile/1/000.p/2"
    path.write_bytes(flip(path.read_bytes()))
    with pytest.raises(AuditDamaged, match=r"^tile/0/001, or hash 1 of tile/1/000\.p/2, was changed$"):
        await start(entries, tmp_path)


async def test_kinds_that_are_kept_without_records_are_left_alone(tmp_path: Path) -> None:
    store = MemoryStore()
    await history(store, str(tmp_path))
    await commit(store, Write("counter", b"c", 0, b"1"))
    assert [each.kind for each in await find_disagreements(store)] == ["counter"]
    assert await find_disagreements(store, unaudited={"counter"}) == []


async def test_an_entry_that_begins_with_such_a_kind_tells_of_the_others_all_the_same(tmp_path: Path) -> None:
    store = MemoryStore()
    async with run_ledger(store, str(tmp_path)) as running:
        await running.commit(Write("counter", b"c", 0, b"1"), Write("key", b"k", 0, b"k"))
    assert await find_disagreements(store, unaudited={"counter"}) == []
    put(b"k", 1, b"forged")(store._records["key"])
    assert [each.id for each in await find_disagreements(store, unaudited={"counter"})] == [b"k"]
