"""kill -9 of a process that writes, at random moments: what was acknowledged is there, and log and records agree."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path

from openk_daemon.store.sqlite import SqliteStore
from tests.recovery.store.writers import Killer, map_counter

ROUNDS = 40


def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(killing: Killer, tmp_path: Path) -> None:
    folder = str(tmp_path / "state")
    os.mkdir(folder, 0o700)
    acknowledged = map_counter(folder)
    chance = random.Random(1)
    grown = 0
    for _ in range(ROUNDS):
        killing.run("records", folder, chance.choice((0.005, 0.03, 0.06, 0.2)) * chance.uniform(0.5, 1.5))
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
