"""secret.put, get, list, delete."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_daemon.audit.entries import tell_writes
from openk_daemon.audit.tiles import LONGEST_ENTRY
from openk_daemon.call import Sealed
from openk_daemon.hierarchy.records import SECRET, SECRET_VERSION
from openk_daemon.refusal import Refusal
from openk_daemon.secrets.cabinet import OUTLIVED_MOST
from openk_daemon.secrets.payload import PayloadError, assemble, decode_contents, encode_contents, front, parse
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Full, Record
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending
from openk_hsm.seam import OpCode
from openk_hsm.software import SoftwareBackend
from tests.support import third_party
from tests.support.custody import Custody, make_call, records, run, vault_secrets
from tests.support.heap import copies, fresh, masked, wipe
from tests.support.lanes import SteeredLane

NAME = "payments/db/password"


def code(error: pytest.ExceptionInfo[Refusal]) -> str:
    return error.value.code.name


def table(custody: Custody, kind: str) -> dict[bytes, Record]:
    assert isinstance(custody.store, MemoryStore)
    return records(custody.store, kind)


@pytest.mark.parametrize("value", [b"", b"x", b"hunter2" * 10000])
def test_what_is_put_is_got(custody: Custody, value: bytes) -> None:
    assert custody.call("secret.put", secret=NAME, value=value) == {"secret": NAME, "version": 1}
    expected = {"value": value, "version": 1, "created": "2026-01-02T03:04:05.000Z"}
    assert custody.call("secret.get", secret=NAME) == expected
    assert custody.again().call("secret.get", secret=NAME) == expected


@pytest.mark.parametrize("fields", [{"user": b"app", "password": b"x" * 300}, {"only": b""}, {"ü": b"1", "a b": b"2"}])
def test_field_maps(custody: Custody, fields: dict[str, bytes]) -> None:
    custody.call("secret.put", secret=NAME, fields=fields)
    assert custody.call("secret.get", secret=NAME)["fields"] == fields
    assert "value" not in custody.call("secret.get", secret=NAME)


@pytest.mark.parametrize("given_", [{}, {"value": b"x", "fields": {"a": b"x"}}, {"fields": {}}])
def test_a_secret_is_one_value_or_fields(custody: Custody, given_: dict[str, bytes]) -> None:
    with pytest.raises(Refusal) as refusal:
        custody.call("secret.put", secret=NAME, **given_)
    assert code(refusal) == "request.invalid"


def test_versions_are_kept(custody: Custody) -> None:
    for i in range(1, 4):
        assert custody.call("secret.put", secret=NAME, value=b"%d" % i)["version"] == i
        custody.clock.pass_(1)
    for other in (custody, custody.again()):
        for i in range(1, 4):
            got = other.call("secret.get", secret=NAME, version=i)
            assert (got["value"], got["version"], got["created"]) == (b"%d" % i, i, f"2026-01-02T03:04:0{4 + i}.000Z")
        assert other.call("secret.get", secret=NAME)["value"] == b"3"
        for missing in (0, 4, 1 << 31):
            with pytest.raises(Refusal) as refusal:
                other.call("secret.get", secret=NAME, version=missing)
            assert code(refusal) == "secret.version_unknown"
    listed = {"secret": NAME, "version": 3, "created": "2026-01-02T03:04:07.000Z"}
    assert custody.call("secret.list", vault="payments") == {"secrets": [listed]}


def test_expected_versions(custody: Custody) -> None:
    def put(expected: int) -> object:
        return custody.call("secret.put", secret=NAME, value=b"x", expected=expected)["version"]

    with pytest.raises(Refusal) as refusal:
        put(1)
    assert code(refusal) == "secret.conflict"
    assert put(0) == 1
    with pytest.raises(Refusal) as refusal:
        put(0)
    assert refusal.value.details == {"version": 1}
    assert put(1) == 2
    assert put(2) == 3


def test_two_daemons_on_one_store_do_not_lose_a_put(custody: Custody) -> None:
    """It should not happen; if it does, the store's versions have the last word."""
    custody.call("secret.put", secret=NAME, value=b"1")
    other = custody.again()
    other.call("secret.get", secret=NAME)
    custody.call("secret.put", secret=NAME, value=b"2")
    with pytest.raises(Refusal) as refusal:
        other.call("secret.put", secret=NAME, value=b"3")
    assert code(refusal) == "store.conflict"
    assert other.call("secret.put", secret=NAME, value=b"3")["version"] == 3


def held(custody: Custody) -> list[int]:
    """Numbers of the versions that the store has, of all secrets together."""
    return sorted(int.from_bytes(id_[-4:], "big") for id_ in table(custody, SECRET_VERSION))


def test_only_so_many_versions_are_kept_where_the_configuration_says_so(custody: Custody) -> None:
    put = partial(custody.call, "secret.put", secret=NAME, value=b"x")
    for _ in range(5):
        put()
    assert held(custody) == [1, 2, 3, 4, 5]
    custody.secrets.keep(3)
    assert held(custody) == [1, 2, 3, 4, 5], "reading the configuration deletes nothing"
    outcome = custody.outcome("secret.put", secret=NAME, value=b"new")
    assert [(write.kind, write.body is None) for write in outcome.writes] == [
        (SECRET_VERSION, False), *[(SECRET_VERSION, True)] * 3, (SECRET, False),
    ]  # fmt: skip
    assert held(custody) == [1, 2, 3, 4, 5], "nor does a put that is not durable yet"
    custody.commit(outcome)
    assert held(custody) == [4, 5, 6]
    assert custody.call("secret.get", secret=NAME, version=4)["value"] == b"x"
    with pytest.raises(Refusal) as refusal:
        custody.call("secret.get", secret=NAME, version=3)
    assert code(refusal) == "secret.version_unknown"
    custody.call("secret.put", secret="payments/other", value=b"y")
    assert held(custody) == [1, 4, 5, 6], "each secret has versions of its own"


def test_a_put_that_fails_deletes_no_version(custody: Custody) -> None:
    custody.secrets.keep(1)
    custody.call("secret.put", secret=NAME, value=b"old")
    outcome = custody.outcome("secret.put", secret=NAME, value=b"new")
    assert isinstance(custody.store, MemoryStore)
    custody.store.fail_with(Full("no space"))
    with pytest.raises(Refusal):
        custody.commit(outcome)
    custody.store.fail_with(None)
    assert held(custody) == [1]
    assert custody.call("secret.get", secret=NAME)["value"] == b"old"


def test_many_versions_go_in_pieces_the_oldest_first(custody: Custody) -> None:
    count = 2 * OUTLIVED_MOST + 10
    for _ in range(count):
        custody.call("secret.put", secret=NAME, value=b"x")
    custody.secrets.keep(5)
    for turn in (1, 2):
        outcome = custody.outcome("secret.put", secret=NAME, value=b"x")
        assert len(tell_writes("{}", outcome.writes)) < LONGEST_ENTRY / 2, "the audit entry names each"
        custody.commit(outcome)
        assert held(custody) == [*range(turn * OUTLIVED_MOST + 1, count + turn + 1)]
    custody.call("secret.put", secret=NAME, value=b"x")
    assert held(custody) == [*range(count - 1, count + 4)]


@given(
    steps=st.lists(st.one_of(st.just("put"), st.integers(0, 4), st.integers(-12, -1)), max_size=30),
)
def test_retention_against_a_model(steps: list[str | int]) -> None:
    """Put; keep so many from now on (0 to 4); delete the version of that number (below 0)."""
    custody = Custody()
    custody.call("vault.create", vault="payments")
    model: list[int] = []
    newest = kept = 0
    for step in steps:
        if step == "put":
            newest = 1 if not model else newest + 1
            custody.call("secret.put", secret=NAME, value=b"x")
            model = [number for number in [*model, newest] if not kept or number > newest - kept]
        elif isinstance(step, int) and step >= 0:
            kept = step
            custody.secrets.keep(kept)
        elif isinstance(step, int) and -step in model:
            custody.call("secret.delete", secret=NAME, version=-step)
            model.remove(-step)
        assert held(custody) == model


def test_delete_all(custody: Custody) -> None:
    for _ in range(3):
        custody.call("secret.put", secret=NAME, value=b"old")
    old = dict(table(custody, SECRET_VERSION))
    assert custody.call("secret.delete", secret=NAME) == {"secret": NAME, "deleted": 3}
    assert table(custody, SECRET) == table(custody, SECRET_VERSION) == {}
    for method in ("secret.get", "secret.delete"):
        with pytest.raises(Refusal) as refusal:
            custody.call(method, secret=NAME)
        assert code(refusal) == "secret.unknown"
    assert custody.call("secret.put", secret=NAME, value=b"new")["version"] == 1
    table(custody, SECRET_VERSION).update(old)  # put back by somebody: they belong to another secret
    assert custody.call("secret.get", secret=NAME)["value"] == b"new"
    with pytest.raises(Refusal):
        custody.call("secret.get", secret=NAME, version=2)


def test_delete_one_version(custody: Custody) -> None:
    for i in range(1, 5):
        custody.call("secret.put", secret=NAME, value=b"%d" % i)
        custody.clock.pass_(1)
    assert custody.call("secret.delete", secret=NAME, version=2)["deleted"] == 1
    for missing in (2, 5, 0):
        for method in ("secret.get", "secret.delete"):
            with pytest.raises(Refusal) as refusal:
                custody.call(method, secret=NAME, version=missing)
            assert code(refusal) == "secret.version_unknown"
    custody.call("secret.delete", secret=NAME, version=4)
    for other in (custody, custody.again()):
        assert other.call("secret.get", secret=NAME)["value"] == b"3"
        (listed,) = other.call("secret.list", vault="payments")["secrets"]
        assert (listed["version"], listed["created"]) == (3, "2026-01-02T03:04:07.000Z")
    assert custody.call("secret.put", secret=NAME, value=b"5", expected=3)["version"] == 5  # 4 is not used again
    for version in (1, 3, 5):
        custody.call("secret.delete", secret=NAME, version=version)
    with pytest.raises(Refusal) as refusal:
        custody.call("secret.get", secret=NAME)
    assert code(refusal) == "secret.unknown"
    assert table(custody, SECRET) == {}


class Model:
    """What a secret with versions is, in five lines."""

    def __init__(self) -> None:
        self.last = 0
        self.versions: dict[int, bytes] = {}

    def forget_if_empty(self) -> None:
        if not self.versions:
            self.last = 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "delete", "delete-all", "restart"]), st.integers(1, 5)), max_size=14
    )
)
def test_against_a_model(steps: list[tuple[str, int]]) -> None:
    custody = Custody()
    custody.call("vault.create", vault="payments")
    model = Model()
    for step, number in steps:
        try:
            if step == "put":
                model.last += 1
                value = os.urandom(4)
                model.versions[model.last] = value
                assert custody.call("secret.put", secret=NAME, value=value)["version"] == model.last
            elif step == "get":
                assert custody.call("secret.get", secret=NAME, version=number)["value"] == model.versions[number]
            elif step == "delete":
                custody.call("secret.delete", secret=NAME, version=number)
                del model.versions[number]
            elif step == "delete-all":
                assert custody.call("secret.delete", secret=NAME)["deleted"] == len(model.versions)
                model.versions.clear()
            else:
                custody = custody.again()
        except Refusal as refusal:
            expected = "secret.version_unknown" if model.versions else "secret.unknown"
            assert refusal.code.name == expected  # noqa: PT017 - whether it raises is the model's to say
            assert not model.versions or number not in model.versions
        model.forget_if_empty()
        listed = custody.call("secret.list", vault="payments")["secrets"]
        assert isinstance(listed, list)
        assert [entry["version"] for entry in listed] == ([max(model.versions)] if model.versions else [])


def test_secrets_leave_no_copies(custody: Custody) -> None:
    secret = fresh(64)
    mask = masked(secret)
    call = make_call("secret.put", None, {"secret": NAME})
    call.arguments.values["value"] = memoryview(secret)  # type: ignore[index]  # a dict, in tests
    custody.commit(run(custody.handlers["secret.put"](call)))
    assert copies(mask) == 1
    wipe(secret)
    assert copies(mask) == 0
    (result,) = custody.outcome("secret.get", None, secret=NAME).results
    assert not isinstance(result, Refusal)
    sealed = result["value"]
    assert copies(mask) == 1  # in the reply's lease
    assert isinstance(sealed, Sealed)
    sealed.lease.release()
    assert copies(mask) == 0


def test_get_costs_one_trip_to_the_hsm() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="payments")
    custody.call("secret.put", secret=NAME, fields={"a": b"1", "b": b"2"})
    lane.operations.clear()
    custody.call("secret.get", secret=NAME)
    assert [operation.code for operation in lane.operations] == [OpCode.DECRYPT]
    assert lane.operations[0].into is not None


def test_the_newest_version_is_read_from_the_store_once(custody: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    genuine = custody.store.read

    def read(kind: str, id_: bytes) -> Pending[Record | None]:
        reads.append(kind)
        return genuine(kind, id_)

    custody.call("secret.put", secret=NAME, value=b"1")
    monkeypatch.setattr(custody.store, "read", read)
    assert [bytes_of(custody) for _ in range(3)] == [b"1"] * 3
    assert reads == ["secret-version"]
    custody.call("secret.put", secret=NAME, value=b"2")
    assert bytes_of(custody) == b"2"
    assert custody.call("secret.get", secret=NAME, version=1)["value"] == b"1"
    assert bytes_of(custody) == b"2"
    custody.call("secret.delete", secret=NAME, version=2)
    assert bytes_of(custody) == b"1"


def bytes_of(custody: Custody) -> object:
    return custody.call("secret.get", secret=NAME)["value"]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_records_are_refused(custody: Custody, data: st.DataObject) -> None:
    if not table(custody, SECRET):
        custody.call("secret.put", secret=NAME, fields={"a": b"1", "b": b"22"})
    kind = data.draw(st.sampled_from([SECRET, SECRET_VERSION]))
    ((id_, record),) = table(custody, kind).items()
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "version"]))
    body = bytearray(record.body)
    changed = record
    if how == "flip":
        bit = data.draw(st.integers(0, 8 * len(body) - 1))
        body[bit // 8] ^= 1 << bit % 8
        changed = replace(record, body=bytes(body))
    elif how == "cut":
        changed = replace(record, body=bytes(body[: data.draw(st.integers(0, len(body) - 1))]))
    elif how == "grow":
        changed = replace(record, body=bytes(body) + data.draw(st.binary(min_size=1, max_size=40)))
    else:
        changed = replace(record, version=record.version + 1)
    table(custody, kind)[id_] = changed
    try:
        with pytest.raises(Refusal) as refusal:
            custody.again().call("secret.get", secret=NAME)
        assert code(refusal) == "store.damaged"
    finally:
        table(custody, kind)[id_] = record


def test_swapped_and_missing_versions(custody: Custody) -> None:
    for value in (b"1", b"2"):
        custody.call("secret.put", secret=NAME, value=value)
        custody.call("secret.put", secret="payments/other", value=value)
    versions = table(custody, SECRET_VERSION)
    ids = sorted(versions)
    for left in ids:
        for right in ids:
            if left != right:
                kept = versions[left]
                versions[left] = replace(kept, body=versions[right].body)
                refused = []
                later = custody.again()
                for name in (NAME, "payments/other"):
                    for number in (1, 2):
                        try:
                            later.call("secret.get", secret=name, version=number)
                        except Refusal as error:
                            refused.append(error.code.name)
                assert refused == ["store.damaged"]
                versions[left] = kept
    for id_ in ids:
        if id_.endswith(b"\2"):
            del versions[id_]
    for name in (NAME, "payments/other"):
        with pytest.raises(Refusal) as refusal:
            custody.call("secret.get", secret=name)
        assert code(refusal) == "store.damaged"


def test_the_documents_are_enough(custody: Custody) -> None:
    """With the vault's keys and docs/formats.md alone."""
    custody.call("secret.put", secret=NAME, value=b"bare")
    custody.call("secret.put", secret=NAME, fields={"user": b"app", "password": b"hunter2"})
    vault = vault_secrets(custody, "payments")
    id_ = third_party.object_id(vault.mac, vault.id, "secret", "db/password")
    record = table(custody, SECRET)[id_]
    head = third_party.open_record(vault.data, SECRET, id_, record.version, record.body)
    assert head[1:2] + head[3:] == ["db/password", 2, 2, 1767323045000]
    assert isinstance(head[2], bytes)
    expected = ([[1, 1767323045000, None], [b"bare"]], [[1, 1767323045000, ["user", "password"]], [b"app", b"hunter2"]])
    for number, (contents, values) in enumerate(expected, 1):
        version_id = head[2] + number.to_bytes(4, "big")
        body = table(custody, SECRET_VERSION)[version_id].body
        assert third_party.open_secret_version(vault.data, vault.id, version_id, body) == (contents, values)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_payload_or_a_payload_error(data: bytes) -> None:
    try:
        payload = parse(data)
    except PayloadError:
        return
    segments = [(bytes(segment.nonce), bytes(segment.sealed)) for segment in payload.segments]
    assert assemble(payload.front, segments) == data


@given(
    st.binary(max_size=200),
    st.lists(
        st.tuples(st.binary(min_size=12, max_size=12), st.binary(min_size=16, max_size=60)), min_size=1, max_size=5
    ),
)
def test_payloads_come_back(envelope: bytes, segments: list[tuple[bytes, bytes]]) -> None:
    body = assemble(front(envelope, len(segments)), segments)
    payload = parse(body)
    assert bytes(payload.envelope) == envelope
    assert [(bytes(s.nonce), bytes(s.sealed)) for s in payload.segments] == segments
    for length in range(len(body)):
        with pytest.raises(PayloadError):
            parse(body[:length])


@given(st.integers(0, 1 << 60), st.none() | st.lists(st.text(), max_size=5))
def test_contents_come_back(created: int, names: list[str] | None) -> None:
    values = 1 if names is None else len(names)
    contents = decode_contents(encode_contents(created, names), values + 1)
    assert (contents.created, contents.names) == (created, None if names is None else tuple(names))
    with pytest.raises(PayloadError):
        decode_contents(encode_contents(created, names), values + 2)


@given(st.binary(max_size=40))
def test_any_bytes_are_contents_or_a_payload_error(data: bytes) -> None:
    with suppress(PayloadError):
        decode_contents(data, 2)


@pytest.mark.parametrize("count", [0, 65536])
def test_too_many_segments(count: int) -> None:
    with pytest.raises(ValueError, match="segments"):
        front(b"", count)
