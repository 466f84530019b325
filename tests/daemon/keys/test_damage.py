"""A store that somebody has changed: every record, every byte. Never a wrong answer, always store.damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_daemon.hierarchy.records import KEY, KEY_USAGE, KEY_VERSION, VAULT
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Record
from tests.support.custody import Custody, records

KINDS = (VAULT, KEY, KEY_VERSION, KEY_USAGE)


def table(custody: Custody, kind: str) -> dict[bytes, Record]:
    assert isinstance(custody.store, MemoryStore)
    return records(custody.store, kind)


def use(custody: Custody) -> None:
    """Everything a request may meet: the vault, the key, its newest and an old version."""
    later = custody.again()
    try:
        later.call("vault.list")
        later.call("key.list", vault="payments")
        later.call("key.encrypt", key="payments/k", input=b"x")
        later.call("key.encrypt", key="payments/k", input=b"x", version=1)
        later.outcome("secret.put", None, secret="payments/s", value=b"x")
        later.outcome("secret.put", None, secret="mail/s", value=b"x")
        later.outcome("vault.create", None, vault="third")
    finally:
        later.keyring.openings.clear()


@pytest.fixture(params=["wrapped", "cached"])
def stocked(request: pytest.FixtureRequest, custody: Custody) -> Custody:
    custody.call("key.create", key="payments/k", algorithm="aes-256-gcm", protection=request.param)
    custody.call("key.rotate", key="payments/k")
    use(custody)
    return custody


def cut(body: bytes) -> bytes:
    return body[:-1]


def grow(body: bytes) -> bytes:
    return body + b"\0"


def empty(_body: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [cut, grow, empty])
def test_truncated_and_grown_records(stocked: Custody, kind: str, change: Callable[[bytes], bytes]) -> None:
    records_ = table(stocked, kind)
    for id_, record in list(records_.items()):
        if kind == VAULT and id_ != next(iter(records_)):
            continue
        records_[id_] = replace(record, body=change(record.body))
        with pytest.raises(Refusal) as refusal:
            use(stocked)
        assert (refusal.value.code.name, refusal.value.details) == ("store.damaged", {"record": kind})
        records_[id_] = record
    use(stocked)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_edited_records(stocked: Custody, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    records_ = table(stocked, kind)
    id_ = sorted(records_)[data.draw(st.integers(0, 1 << 20)) % len(records_)]
    record = records_[id_]
    body = bytearray(record.body)
    bit = data.draw(st.integers(0, 1 << 20)) % (8 * len(body))
    body[bit // 8] ^= 1 << bit % 8
    records_[id_] = replace(record, body=bytes(body))
    try:
        with pytest.raises(Refusal) as refusal:
            use(stocked)
        assert refusal.value.code.name == "store.damaged"
    finally:
        records_[id_] = record


@pytest.mark.parametrize("kind", [KEY, KEY_USAGE])
def test_replayed_records(stocked: Custody, kind: str) -> None:
    """An older body under the newer version number."""
    before = dict(table(stocked, kind))
    if kind == KEY:
        stocked.call("key.rotate", key="payments/k")
    else:
        for custody in (stocked.again(), stocked.again()):  # each start reserves a block
            custody.call("key.encrypt", key="payments/k", input=b"x")
            custody.keyring.openings.clear()
    records_ = table(stocked, kind)
    replayed = 0
    for id_, old in before.items():
        if records_[id_].version != old.version:
            records_[id_] = replace(records_[id_], body=old.body)
            replayed += 1
    assert replayed
    with pytest.raises(Refusal) as refusal:
        use(stocked)
    assert refusal.value.code.name == "store.damaged"


@pytest.mark.parametrize("kind", [KEY_VERSION, KEY_USAGE])
def test_missing_records(stocked: Custody, kind: str) -> None:
    """Removing the count of uses must not start it anew."""
    records_ = table(stocked, kind)
    for id_, record in list(records_.items()):
        del records_[id_]
        with pytest.raises(Refusal) as refusal:
            use(stocked)
        assert refusal.value.code.name == "store.damaged"
        assert refusal.value.details == {"record": kind}
        records_[id_] = record


def test_a_key_moved_to_another_vault(stocked: Custody) -> None:
    stocked.call("key.create", key="mail/k", algorithm="aes-256-gcm")
    records_ = table(stocked, KEY)
    ids = sorted(records_)
    for at, other in (ids, ids[::-1]):
        kept = dict(records_)
        records_[at] = replace(records_[at], body=records_[other].body)
        later = stocked.again()
        codes = []
        for name in ("payments/k", "mail/k"):
            try:
                later.call("key.describe", key=name)
            except Refusal as refusal:
                codes.append(refusal.code.name)
        assert codes == ["store.damaged"]
        records_.update(kept)
