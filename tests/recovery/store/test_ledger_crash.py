"""kill -9 of a process that keeps the audit log: each start makes it whole, and a stranger can verify it."""

from __future__ import annotations

import json
import os
import random
from base64 import b64encode
from pathlib import Path

import trio

import openk_tools.audit_verify as verifier
from tests.daemon.audit.logs import KEY, ORIGIN, run_state, spki_of
from tests.daemon.store.answers import answer
from tests.recovery.store.writers import Killer

ROUNDS = 25
PUBLIC = verifier.read_public_key(b64encode(spki_of(KEY)).decode())


async def look(state: str) -> tuple[int, int, list[str]]:
    """Start and stop properly: the size of the log, how much was unsigned, its own events."""
    async with run_state(state) as running:
        assert running.recovery.disagreements == ()
        entries = await answer(running.ledger.tail(0, running.store.log_size()))
        events = [record["event"] for record in map(json.loads, entries) if "event" in record]
        times = [json.loads(entry)["time"] for entry in entries]
        assert times == sorted(set(times))
        return running.store.log_size(), running.recovery.unsigned, events


def test_the_log_is_whole_after_any_crash(killing: Killer, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    chance = random.Random(2)
    heads: list[verifier.Checkpoint] = []
    recovered = 0
    for round_ in range(ROUNDS):
        killing.run("ledger", state, chance.uniform(0, 0.12))
        audit = os.path.join(state, "audit")
        heads.append(verifier.verify_folder(audit, PUBLIC, ORIGIN).head)  # as the crash left it
        if round_ % 5 == 4:
            size, unsigned, events = trio.run(look, state)
            recovered += unsigned > 0
            report = verifier.verify_folder(audit, PUBLIC, ORIGIN, [head.size for head in heads])
            assert report.head.size == size
            assert [report.roots[head.size] for head in heads] == [head.root for head in heads], "history changed"
            assert set(events) == {"audit.recovered"}
    assert heads[-1].size > 500
    assert recovered, "every kill met a signed log: the test shows nothing"
