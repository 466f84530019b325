"""openk and a third party's code, both against tests/vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from openk_daemon.call import Sealed
from openk_daemon.hierarchy.records import KeyBody, KeyUsageBody, RecordError, SecretBody, decode, encode
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.hierarchy.vault_keys import VaultKeys, sealer
from openk_daemon.keys.ciphers import Ciphers
from openk_daemon.keys.state import KeyState, KeyVersion, Opened, ciphertext_header
from openk_daemon.keys.suites import Protection
from openk_daemon.refusal import Refusal
from openk_daemon.secrets.locker import Locker
from openk_daemon.store.seam import Record
from openk_hsm.inline import InlineLane
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Purpose, Resident, Wrapper
from openk_hsm.software import SoftwareBackend
from tests.support import third_party
from tests.support.custody import POOL, Custody, make_call, run

FOLDER = Path(__file__).parents[2] / "vectors"
Vector = dict[str, Any]  # Any: JSON, whose shape tests/vectors/README.md gives


def load(name: str) -> tuple[Vector, list[Vector]]:
    whole = json.loads((FOLDER / name).read_text())
    return whole, whole["vectors"]


def vectors(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", load(name)[1], ids=lambda vector: vector["name"])


def hexed(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return [hexed(part) for part in value] if isinstance(value, list | tuple) else value


def vault_of(whole: Vector, custody: Custody) -> VaultKeys:
    """A vault whose keys are those of the vectors, as resident keys of the software HSM."""
    lane = custody.lane
    assert isinstance(lane, InlineLane)
    backend = lane._backend
    assert isinstance(backend, SoftwareBackend)
    handles = []
    for slot, (name, algorithm, purpose) in enumerate(
        (("data_key", Algorithm.AES_256_GCM, Purpose.ENCRYPT), ("mac_key", Algorithm.HMAC_SHA_256, Purpose.MAC)), 900
    ):
        spec = KeySpec(algorithm, purpose)
        backend._token["vector", name.encode()] = (spec, bytes.fromhex(whole.get(name, "00" * 32)))
        handles.append(KeyHandle(slot, spec, Resident("vector", name.encode())))
    id_ = bytes.fromhex(whole["vault_id"])
    return VaultKeys("v", id_, 0, Wrapper(handles[0], handles[1]), sealer(id_, handles[0]))


@pytest.fixture
def key_of(custody: Custody) -> Iterator[Any]:
    """A cached key with given bytes, already open."""
    leases = []

    def make(key: bytes, key_id: bytes, algorithm: Algorithm, purpose: Purpose) -> KeyState:
        lease = POOL.lease(len(key))
        leases.append(lease)
        lease.view[:] = key
        header = ciphertext_header(purpose, key_id, 1)
        version = KeyVersion(1, 0, None, None, b"", header, None, Opened(lease, float("inf"), 1 << 30))
        vault = run(custody.hierarchy.vault("payments"))
        return KeyState(
            "payments/k", vault, b"", 1, key_id, algorithm, purpose, Protection.CACHED, 0, version, {1: version}
        )

    yield make
    for lease in leases:
        lease.release()


@vectors("ciphertexts.json")
def test_ciphertexts(custody: Custody, key_of: Any, vector: Vector) -> None:  # noqa: ANN401 - see key_of
    whole, _ = load("ciphertexts.json")
    key, sealed, aad = (bytes.fromhex(text) for text in (whole["key"], vector["ciphertext"], vector["aad"]))
    state = key_of(key, bytes.fromhex(whole["key_id"]), Algorithm.AES_256_GCM, Purpose.ENCRYPT)
    (opened,) = run(Ciphers(custody.keyring, POOL).open(state, [(memoryview(sealed), aad)], 0, 0))
    assert outcome(opened if isinstance(opened, Refusal) else opened[0], "plaintext") == expected(vector, "plaintext")
    if "plaintext" in vector:
        assert third_party.open_envelope(key, sealed, aad).hex() == vector["plaintext"]


@vectors("derivations.json")
def test_derivations(custody: Custody, key_of: Any, vector: Vector) -> None:  # noqa: ANN401 - see key_of
    key, label, context = (bytes.fromhex(vector[name]) for name in ("key", "label", "context"))
    state = key_of(key, bytes(16), Algorithm(f"hmac-{vector['hash']}"), Purpose.DERIVE)
    custody.keyring.keep(state)
    given: dict[str, str | int | bytes] = {"key": "payments/k", "mode": vector["mode"], "length": vector["length"]}
    if label:
        given["label"] = label
    call = make_call("key.derive", None, {**given, "context": context})
    try:
        (derived,) = run(custody.handlers["key.derive"](call)).results
        got = outcome(derived if isinstance(derived, Refusal) else derived["derived"], "derived")
    except Refusal as refusal:
        got = outcome(refusal, "derived")
    finally:
        state.newest.opened = None  # the lease is the fixture's
    assert got == expected(vector, "derived")
    if "derived" in vector:
        length = vector["length"]
        if vector["mode"] == "hkdf-expand":
            theirs = third_party.derive_expand(key, vector["hash"], length, context)
        else:
            theirs = third_party.derive_counter(key, vector["hash"], length, label, context)
        assert theirs.hex() == vector["derived"]


@vectors("records.json")
def test_records(custody: Custody, vector: Vector) -> None:
    whole, _ = load("records.json")
    vault = vault_of(whole, custody)
    id_, body = bytes.fromhex(vector["id"]), bytes.fromhex(vector["body"])
    types: dict[str, type[KeyBody | KeyUsageBody | SecretBody]] = {
        "key": KeyBody,
        "key-usage": KeyUsageBody,
        "secret": SecretBody,
    }
    record = Record(vector["kind"], id_, vector["version"], body)

    def open_it() -> bytes:
        (plain,) = run(custody.hierarchy.sealing.open(vault.sealer, [record]))
        assert encode(decode(types[vector["kind"]], plain)) == plain
        return plain

    if "error" in vector:
        assert refused(open_it) == vector["error"]
        return
    open_it()
    theirs = third_party.open_record(bytes.fromhex(whole["data_key"]), vector["kind"], id_, vector["version"], body)
    assert {"contents": hexed(theirs)} == expected(vector, "contents")


@vectors("secrets.json")
def test_secrets(custody: Custody, vector: Vector) -> None:
    whole, _ = load("secrets.json")
    vault = vault_of(whole, custody)
    id_, body = bytes.fromhex(vector["id"]), bytes.fromhex(vector["body"])
    record = Record("secret-version", id_, vector["version"], body)
    locker = Locker(custody.hierarchy, POOL)
    if "error" in vector:
        assert refused(lambda: run(locker.unlock(vault, record, 0))) == vector["error"]
        return
    unlocked = run(locker.unlock(vault, record, 0))
    values = [outcome(value, "value")["value"] for value in unlocked.values]
    names = None if unlocked.names is None else list(unlocked.names)
    assert (unlocked.created, names, values) == (vector["created"], vector["names"], vector["values"])
    key = bytes.fromhex(whole["data_key"])
    contents, plain = third_party.open_secret_version(key, vault.id, id_, body)
    assert (contents[1:], hexed(plain)) == ([vector["created"], vector["names"]], vector["values"])


@vectors("ids.json")
def test_ids(custody: Custody, vector: Vector) -> None:
    whole, _ = load("ids.json")
    vault = vault_of(whole, custody)
    assert run(custody.hierarchy.object_id(vault, vector["kind"], vector["object"])).hex() == vector["id"]
    mac_key = bytes.fromhex(whole["mac_key"])
    assert third_party.object_id(mac_key, vault.id, vector["kind"], vector["object"]).hex() == vector["id"]


def test_a_third_party_notices_too() -> None:
    """What openk refuses as damaged does not open by the book either, where the cipher is what notices."""
    whole, every = load("ciphertexts.json")
    noticed = 0
    for vector in every:
        if vector["name"] in {"wrong AAD", "no AAD", "bit flipped in the tag", "header not authenticated"}:
            with pytest.raises(InvalidTag):
                third_party.open_envelope(
                    bytes.fromhex(whole["key"]), bytes.fromhex(vector["ciphertext"]), bytes.fromhex(vector["aad"])
                )
            noticed += 1
    assert noticed == 4


def refused(attempt: Callable[[], object]) -> str:
    """The code it is refused with."""
    with pytest.raises((Refusal, RecordError)) as error:
        attempt()
    value = error.value
    assert isinstance(value, Refusal | RecordError)
    return refuse(value).code.name if isinstance(value, RecordError) else value.code.name


def outcome(value: object, name: str) -> dict[str, str]:
    if isinstance(value, Refusal):
        return {"error": value.code.name}
    assert isinstance(value, Sealed)
    with value.lease as lease:
        return {name: bytes(lease.view[: value.length]).hex()}


def expected(vector: Vector, name: str) -> dict[str, object]:
    return {"error": vector["error"]} if "error" in vector else {name: vector[name]}
