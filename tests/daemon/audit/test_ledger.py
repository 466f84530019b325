"""The ledger at work: records that are durable with their writes, heads in time, proofs, trouble and its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openk_daemon.audit import admission
from openk_daemon.audit.checkpoint import open_note
from openk_daemon.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from openk_daemon.audit.seam import AuditUnavailable, EntryTooLarge, Head, UnknownEntry
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Conflict, Full, Record, StoreError, Write
from openk_hsm.errors import Unavailable
from tests.daemon.audit.logs import NOTE_KEY, ORIGIN, SLOW, Running, Signer, run_ledger, run_state
from tests.daemon.store.answers import answer


def root(head: Head) -> bytes:
    return open_note(head.checkpoint, ORIGIN, NOTE_KEY).root


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.005)


async def test_a_record_tells_of_its_writes_and_commits_with_them(tmp_path: Path) -> None:
    async with run_state(str(tmp_path / "state")) as running:
        committed = await running.commit(Write("key", b"\x01", 0, b"body"), method="key.create")
        assert committed.index == 0
        assert await answer(running.store.read("key", b"\x01")) == Record("key", b"\x01", 1, b"body")
        entry = json.loads((await answer(running.ledger.tail(0, 10)))[0])
        assert entry["method"] == "key.create"
        assert entry["writes"][0]["id"] == "01"
        with pytest.raises(Conflict):
            await running.commit(Write("key", b"\x01", 0, b"again"))
        assert running.store.log_size() == 1


async def test_head_is_signed_when_it_is_asked_for(tmp_path: Path) -> None:
    signer = Signer()
    async with run_ledger(MemoryStore(), str(tmp_path / "audit"), signer=signer) as running:
        empty = await running.head()
        assert (empty.signed_size, empty.size) == (0, 0)
        await running.fill(3)
        before = len(signer.signed)
        head = await running.head()
        assert (head.signed_size, head.size) == (3, 3)
        assert open_note(head.checkpoint, ORIGIN, NOTE_KEY).size == 3
        assert (await running.head()).checkpoint == head.checkpoint
        assert len(signer.signed) == before + 1, "a log that has not grown needs no new signature"


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600])
async def test_every_entry_can_be_proved_to_be_in_the_log(tmp_path: Path, size: int) -> None:
    async with run_state(str(tmp_path / "state")) as running:
        await running.fill(size)
        head = await running.head()
        entries = await answer(running.store.entries(0, size))
        for index in {0, size // 2, size - 1}:
            proof = await running.prove(index)
            assert (proof.index, proof.size, proof.checkpoint) == (index, size, head.checkpoint)
            assert verify_inclusion(leaf_hash(entries[index]), index, size, proof.hashes, root(head))


async def test_the_log_can_be_proved_to_have_only_grown(tmp_path: Path) -> None:
    async with run_state(str(tmp_path / "state")) as running:
        heads: list[Head] = [await running.head()]
        for count in (1, 100, 155, 1, 300):
            await running.fill(count)
            heads.append(await running.head())
        newest = heads[-1]
        for old in heads:
            proof = await running.prove(0, old.signed_size)
            assert (proof.index, proof.size, proof.checkpoint) == (0, newest.signed_size, newest.checkpoint)
            assert verify_consistency(old.signed_size, newest.signed_size, root(old), root(newest), proof.hashes)


async def test_what_is_not_in_the_log_cannot_be_proved(tmp_path: Path) -> None:
    async with run_ledger(MemoryStore(), str(tmp_path / "audit")) as running:
        await running.fill(3)
        for index, old in ((3, None), (-1, None), (0, 4), (0, -1)):
            with pytest.raises(UnknownEntry):
                await running.prove(index, old)


async def test_a_proof_of_an_entry_without_signature_gets_one_first(tmp_path: Path) -> None:
    async with run_ledger(MemoryStore(), str(tmp_path / "audit")) as running:
        await running.fill(5)
        assert running.ledger.signed_size == 0
        assert (await running.prove(4)).size == 5


async def test_heads_are_signed_when_enough_entries_wait(tmp_path: Path) -> None:
    async with run_ledger(MemoryStore(), str(tmp_path / "audit"), replace(SLOW, count=10)) as running:
        await running.fill(9)
        await trio.sleep(0.05)
        assert running.ledger.signed_size == 0
        assert running.ledger.lag >= 0.05
        await running.fill(1)
        await until(lambda: running.ledger.signed_size == 10)
        await running.fill(10)
        await until(lambda: running.ledger.signed_size == 20)
        assert running.ledger.lag == 0.0


async def test_heads_are_signed_when_time_is_up_and_at_the_stop(tmp_path: Path) -> None:
    async with run_ledger(MemoryStore(), str(tmp_path / "audit"), replace(SLOW, interval=0.02)) as running:
        await running.fill(3)
        await until(lambda: running.ledger.signed_size == 3)
    async with run_ledger(MemoryStore(), str(tmp_path / "another")) as running:
        await running.fill(3)
    assert running.ledger.signed_size == 3
    with pytest.raises(AuditUnavailable, match="stopping"):
        await running.commit()


async def test_while_the_hsm_is_down_the_log_goes_on_and_is_signed_later(tmp_path: Path) -> None:
    signer = Signer()
    async with run_ledger(MemoryStore(), str(tmp_path / "audit"), signer=signer) as running:
        await running.fill(2)
        old = await running.head()
        signer.error = Unavailable("unplugged")
        await running.fill(300)
        head = await running.head()
        assert (head.checkpoint, head.signed_size, head.size) == (old.checkpoint, 2, 302)
        with pytest.raises(AuditUnavailable):
            await running.prove(301)
        assert (await running.prove(1)).size == 2
        signer.error = None
        assert (await running.head()).signed_size == 302
        assert (await running.prove(301)).size == 302


async def test_without_the_hsm_there_is_no_start(tmp_path: Path) -> None:
    signer = Signer(error=Unavailable("unplugged"))
    with pytest.raises(AuditUnavailable):
        async with run_ledger(MemoryStore(), str(tmp_path / "audit"), signer=signer):
            raise AssertionError


async def test_a_signature_by_a_wrong_key_is_not_published(tmp_path: Path) -> None:
    signer = Signer(Ed25519PrivateKey.generate())
    with pytest.raises(AuditUnavailable, match="another key"):
        async with run_ledger(MemoryStore(), str(tmp_path / "audit"), signer=signer):
            raise AssertionError


async def test_nothing_is_admitted_before_the_log_was_examined(tmp_path: Path) -> None:
    from openk_daemon.audit.ledger import LogLedger  # noqa: PLC0415 - only here without recover

    ledger = LogLedger(MemoryStore(), str(tmp_path), origin=ORIGIN, key=NOTE_KEY, sign=Signer())
    with pytest.raises(AuditUnavailable, match="examined"):
        await answer(ledger.commit('{"a":1}'))


async def test_a_record_that_fits_no_bundle_is_refused(tmp_path: Path) -> None:
    async with run_ledger(MemoryStore(), str(tmp_path / "audit")) as running:
        with pytest.raises(EntryTooLarge):
            await running.commit(detail="x" * 65_536)
        await running.commit(detail="x" * 65_000)
        assert (await running.head()).signed_size == 1


async def events(running: Running) -> list[str]:
    entries = await answer(running.ledger.tail(0, 1000))
    return [record["event"] for record in map(json.loads, entries) if "event" in record]


async def test_a_store_that_cannot_commit_stops_admission_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "GUARD", 0.02)
    store = MemoryStore()
    async with run_ledger(store, str(tmp_path / "audit")) as running:
        await running.commit()
        store.fail_with(Full("no space left"))
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match="no space left"):
                await running.commit()
        await trio.sleep(0.1)
        assert running.ledger.unavailable is not None
        store.fail_with(None)
        await until(lambda: running.ledger.unavailable is None)
        await running.commit()
        assert await events(running) == ["audit.resumed"]


async def test_a_disk_that_fills_up_stops_admission_while_the_log_can_still_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "GUARD", 0.02)
    async with run_ledger(MemoryStore(), str(tmp_path / "audit")) as running:
        await running.commit()
        running.ledger._admission.reserve = 1 << 62
        await until(lambda: running.ledger.unavailable is not None)
        with pytest.raises(AuditUnavailable, match="reserve"):
            await running.commit()
        assert await events(running) == ["audit.paused"]
        running.ledger._admission.reserve = 0
        await until(lambda: running.ledger.unavailable is None)
        await running.commit()
        assert await events(running) == ["audit.paused", "audit.resumed"]


async def test_the_store_s_own_errors_reach_the_caller(tmp_path: Path) -> None:
    store = MemoryStore()
    async with run_ledger(store, str(tmp_path / "audit")) as running:
        store.close()
        with pytest.raises(StoreError, match="closed"):
            await running.commit()


async def test_tiles_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    store = MemoryStore()
    async with run_ledger(store, str(tmp_path / "audit")) as running:
        await running.fill(600)
        (tmp_path / "audit" / "tile").write_bytes(b"a file in the way")
        assert (await running.head()).signed_size == 0
        (tmp_path / "audit" / "tile").unlink()
        await running.fill(10)
        assert (await running.head()).signed_size == 610
        assert (await running.prove(5)).size == 610


async def test_only_the_tiles_of_the_last_two_heads_are_kept(tmp_path: Path) -> None:
    async with run_ledger(MemoryStore(), str(tmp_path / "audit")) as running:
        for count in (3, 4, 5, 300, 6):
            await running.fill(count)
            await running.head()
        found = sorted(
            path.relative_to(tmp_path / "audit/tile/0").as_posix()
            for path in (tmp_path / "audit/tile/0").rglob("*")
            if path.is_file()
        )
        assert found == ["000", "001.p/56", "001.p/62"]
    found = sorted(path.name for path in (tmp_path / "audit/tile/0/001.p").iterdir())
    assert found == ["62"]


async def test_times_go_on_over_restarts(tmp_path: Path) -> None:
    store = MemoryStore()
    folder = str(tmp_path / "audit")
    async with run_ledger(store, folder, clock=lambda: 1_900_000_000_000_000_000) as running:
        await running.fill(3)
    async with run_ledger(store, folder, clock=lambda: 1_800_000_000_000_000_000) as running:
        await running.fill(3)
        times = [json.loads(entry)["time"] for entry in await answer(running.ledger.tail(0, 10))]
    assert times == sorted(set(times))
