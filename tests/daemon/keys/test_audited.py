"""What the audit log says was written is what lies in the store, but for counters and the journal."""

from __future__ import annotations

import json
from hashlib import sha256

from openk_daemon.audit.agreement import disagreements
from openk_daemon.call import Outcome
from openk_daemon.hierarchy.records import UNAUDITED
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Unit
from tests.support.custody import Custody, run


def commit(custody: Custody, outcome: Outcome) -> None:
    """As the ledger does it."""
    writes = [
        {
            "kind": write.kind,
            "id": write.id.hex(),
            "version": write.expected + 1,
            "sha256": None if write.body is None else sha256(write.body).hexdigest(),
        }
        for write in outcome.writes
    ]
    entry = json.dumps({"writes": writes}, separators=(",", ":")).encode()
    run(_commit(custody, Unit(outcome.writes, entry)))
    for step in outcome.after:
        step.apply()


async def _commit(custody: Custody, unit: Unit) -> None:
    await custody.store.commit(unit)


def test_the_log_and_the_store_agree() -> None:
    custody = Custody()
    commit(custody, custody.outcome("vault.create", None, vault="v"))
    commit(custody, custody.outcome("key.create", None, key="v/aes", algorithm="aes-256-gcm"))
    commit(custody, custody.outcome("key.create", None, key="v/p", algorithm="p-256", protection="resident"))
    commit(custody, custody.outcome("key.rotate", None, key="v/aes"))
    for value in (b"1", b"2"):
        commit(custody, custody.outcome("secret.put", None, secret="v/s", value=value))
    commit(custody, custody.outcome("secret.delete", None, secret="v/s", version=1))
    for _ in range(3):
        custody.batch("key.encrypt", [{"input": b"x"}] * 1000, key="v/aes")
    run(custody.keyring.close())
    store = custody.store
    assert isinstance(store, MemoryStore)
    assert [found for found in disagreements(store, 0, UNAUDITED) if found] == []
