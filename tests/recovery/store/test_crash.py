"""kill -9 of a process that writes, at random moments: what was acknowledged is there, and log and records agree."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import time
from pathlib import Path

import trio

from openk_daemon.store.seam import Conflict, Unit, Write
from openk_daemon.store.sqlite import SqliteStore, open_store
from openk_hsm.pending import drive

ROUNDS = 40
FLIGHT = 16
RECORDS = 30


async def write_for_ever(folder: str, acknowledged: mmap.mmap) -> None:
    """Sixteen writers change thirty records; each acknowledged place in the log is noted for the parent."""
    async with open_store(folder) as store:
        chance = random.Random(os.getpid())

        async def writer() -> None:
            while True:
                id_ = b"%02d" % chance.randrange(RECORDS)
                record = await store.read("key", id_)
                expected = 0 if record is None else record.version
                body = (
                    None if record is not None and chance.random() < 0.1 else chance.randbytes(chance.randrange(3000))
                )
                writes = [Write("key", id_, expected, body), Write("counter", b"%d" % os.getpid() + id_, 0, b"")][
                    : chance.choice((0, 1, 1, 1))
                ]
                told = [[w.kind, w.id.hex(), w.expected + 1, None if w.body is None else w.body.hex()] for w in writes]
                try:
                    committed = await store.commit(Unit(writes, json.dumps(told).encode()))
                except Conflict:
                    continue  # another writer was faster
                newest = struct.unpack_from("<q", acknowledged)[0]
                struct.pack_into("<q", acknowledged, 0, max(newest, committed.index + 1))

        for _ in range(FLIGHT):
            drive(writer(), lambda _value, error: print(repr(error), flush=True))
        await trio.sleep_forever()


def run_and_kill(folder: str, seconds: float, acknowledged: mmap.mmap) -> None:
    child = os.fork()
    if child == 0:
        try:
            trio.run(write_for_ever, folder, acknowledged)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(tmp_path: Path) -> None:
    folder = str(tmp_path / "state")
    os.mkdir(folder, 0o700)
    acknowledged = mmap.mmap(-1, 4096)
    chance = random.Random(1)
    grown = 0
    for _ in range(ROUNDS):
        run_and_kill(folder, chance.choice((0.005, 0.03, 0.06, 0.2)) * chance.uniform(0.5, 1.5), acknowledged)
        store = SqliteStore(folder)
        size = store.log_size()
        assert size >= struct.unpack_from("<q", acknowledged)[0]
        grown += size > grown
        records: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        entries = store.entries(0, size + 1).result()
        assert len(entries) == size
        for entry in entries:
            for kind, id_, version, body in json.loads(entry):
                key = (kind, bytes.fromhex(id_))
                assert version == records.get(key, (0, b""))[0] + 1
                records.pop(key, None)
                if body is not None:
                    records[key] = (version, bytes.fromhex(body))
        found = [record for kind in store.kinds().result() for record in store.query(kind, limit=100_000).result()]
        assert {(record.kind, record.id): (record.version, record.body) for record in found} == records
        store.close()
    assert grown > 10, "the writers were killed before they wrote: the test shows nothing"
