"""mac, verify_mac, derive, agree, encapsulate, decapsulate, random.bytes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openk_daemon.call import Sealed
from openk_daemon.hierarchy.records import KEY, KEY_VERSION
from openk_daemon.keys.agreements import peer_point
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_hsm.errors import TimedOut
from openk_hsm.inline import InlineLane
from openk_hsm.seam import Algorithm, OpCode
from openk_hsm.software import SoftwareBackend
from tests.support import third_party
from tests.support.custody import Custody, make_call, records, run, vault_secrets
from tests.support.heap import copies, fresh, masked, wipe
from tests.support.lanes import SteeredLane

HMACS = {"hmac-sha-256": ("sha-256", 32), "hmac-sha-384": ("sha-384", 48), "hmac-sha-512": ("sha-512", 64)}
every_hmac = pytest.mark.parametrize("algorithm", HMACS)
every_protection = pytest.mark.parametrize("protection", ["wrapped", "resident", "cached"])


def blob(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def raw_key(custody: Custody, name: str) -> bytes:
    """The bytes of a cached key, got from the store as docs/formats.md says."""
    assert isinstance(custody.store, MemoryStore)
    vault = vault_secrets(custody, "payments")
    id_ = third_party.object_id(vault.mac, vault.id, "key", name)
    record = records(custody.store, KEY)[id_]
    key = third_party.open_record(vault.data, KEY, id_, record.version, record.body)
    version_id = blob(key[2]) + (1).to_bytes(4, "big")
    record = records(custody.store, KEY_VERSION)[version_id]
    version = third_party.open_record(vault.data, KEY_VERSION, version_id, record.version, record.body)
    return third_party.cached_key(vault.data, vault.id, key, 1, blob(version[2]))


@every_hmac
@every_protection
def test_macs_verify_and_changed_ones_do_not(custody: Custody, algorithm: str, protection: str) -> None:
    custody.call("key.create", key="payments/m", algorithm=algorithm, protection=protection)
    mac = blob(custody.call("key.mac", key="payments/m", input=b"x")["mac"])
    assert len(mac) == HMACS[algorithm][1]
    assert mac == custody.call("key.mac", key="payments/m", input=b"x")["mac"]
    assert custody.call("key.verify_mac", key="payments/m", input=b"x", mac=mac) == {"valid": True, "version": 1}
    for data, bad in ((b"y", mac), (b"x", mac[:-1]), (b"x", b""), (b"x", mac + b"\0"), (b"x", bytes(len(mac)))):
        with pytest.raises(Refusal) as refusal:
            custody.call("key.verify_mac", key="payments/m", input=data, mac=bad)
        assert refusal.value.code.name == "key.mac_invalid"
    results = custody.batch(
        "key.verify_mac", [{"input": b"x", "mac": mac}, {"input": b"z", "mac": mac}], key="payments/m"
    )
    assert [isinstance(result, Refusal) for result in results] == [False, True]
    custody.call("key.rotate", key="payments/m")
    assert custody.call("key.mac", key="payments/m", input=b"x")["mac"] != mac
    assert custody.call("key.mac", key="payments/m", input=b"x", version=1) == {"mac": mac, "version": 1}


@every_hmac
def test_macs_are_what_everybody_computes(custody: Custody, algorithm: str) -> None:
    custody.call("key.create", key="payments/m", algorithm=algorithm, protection="cached")
    expected = third_party.mac(raw_key(custody, "m"), HMACS[algorithm][0], b"some input")
    assert custody.call("key.mac", key="payments/m", input=b"some input")["mac"] == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(HMACS)),
    st.integers(1, 300) | st.sampled_from([32, 48, 64, 4096]),
    st.binary(max_size=20).filter(lambda label: 0 not in label),
    st.binary(max_size=20),
)
def test_derivation_is_what_everybody_computes(
    custody: Custody, algorithm: str, length: int, label: bytes, context: bytes
) -> None:
    name = f"payments/{algorithm}"
    if custody.keyring.loaded(name) is None:
        custody.call("key.create", key=name, algorithm=algorithm, purpose="derive", protection="cached")
    key, hash_ = raw_key(custody, algorithm), HMACS[algorithm][0]
    derived = custody.call("key.derive", key=name, length=length, label=label, context=context)["derived"]
    assert derived == third_party.derive_counter(key, hash_, length, label, context)
    derived = custody.call("key.derive", key=name, mode="hkdf-expand", length=length, context=context)["derived"]
    assert derived == third_party.derive_expand(key, hash_, length, context)


@every_hmac
@every_protection
@pytest.mark.parametrize("mode", ["sp800-108-counter", "hkdf-expand"])
def test_derivation_everywhere(custody: Custody, algorithm: str, protection: str, mode: str) -> None:
    custody.call("key.create", key="payments/d", algorithm=algorithm, purpose="derive", protection=protection)

    def derive(context: bytes, length: int) -> bytes:
        return blob(custody.call("key.derive", key="payments/d", mode=mode, length=length, context=context)["derived"])

    assert len(derive(b"a", 100)) == 100
    assert derive(b"a", 100) == derive(b"a", 100) != derive(b"b", 100)
    assert len(blob(custody.call("key.derive", key="payments/d", mode=mode)["derived"])) == 32
    if mode == "hkdf-expand":
        assert derive(b"a", 100)[:40] == derive(b"a", 40)  # RFC 5869: a prefix
    else:
        assert derive(b"a", 100)[:40] != derive(b"a", 40)  # SP 800-108 binds the length
    contexts = [b"a", b"b", b"a"]
    batch = custody.batch("key.derive", [{"context": c} for c in contexts], key="payments/d", mode=mode, length=70)
    assert [isinstance(result, Refusal) or result["derived"] for result in batch] == [derive(c, 70) for c in contexts]


@pytest.mark.parametrize(
    "given",
    [{"length": 0}, {"length": 4097}, {"label": b"a\0b"}, {"mode": "hkdf-expand", "label": b"a"}],
)
def test_derivations_that_are_refused(custody: Custody, given: dict[str, bytes | int | str]) -> None:
    custody.call("key.create", key="payments/d", algorithm="hmac-sha-256", purpose="derive")
    with pytest.raises(Refusal) as refusal:
        custody.call("key.derive", key="payments/d", **given)
    assert refusal.value.code.name == "key.input_invalid"


@pytest.mark.parametrize("mode", ["sp800-108-counter", "hkdf-expand"])
def test_derivation_that_fails_half_way_gives_everything_back(mode: str) -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/d", algorithm="hmac-sha-256", purpose="derive")
    count = 0

    def fourth(operation: object) -> TimedOut | None:
        nonlocal count
        count += 1
        return TimedOut("slow") if count == 4 else None

    lane.fail = fourth
    batch = custody.batch("key.derive", [{"context": b"a"}, {"context": b"b"}], key="v/d", mode=mode, length=64)
    refused = [result.code.name for result in batch if isinstance(result, Refusal)]
    assert refused == ["hsm.timeout"]
    assert all(
        operation.into is not None for operation in lane.operations if operation.code is OpCode.MAC and operation.client
    )


CURVES = {"p-256": ec.SECP256R1(), "p-384": ec.SECP384R1(), "p-521": ec.SECP521R1()}


@pytest.mark.parametrize("algorithm", CURVES)
@every_protection
def test_diffie_hellman(custody: Custody, algorithm: str, protection: str) -> None:
    custody.call("key.create", key="payments/a", algorithm=algorithm, purpose="agree", protection=protection)
    ours = serialization.load_der_public_key(blob(custody.call("key.public", key="payments/a")["public"]))
    assert isinstance(ours, ec.EllipticCurvePublicKey)
    mine = ec.generate_private_key(CURVES[algorithm])
    expected = mine.exchange(ec.ECDH(), ours)
    public = mine.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    x962 = serialization.Encoding.X962
    point = public.public_bytes(x962, serialization.PublicFormat.UncompressedPoint)
    compressed = public.public_bytes(x962, serialization.PublicFormat.CompressedPoint)
    for form in (der, point, compressed):
        assert custody.call("key.agree", key="payments/a", public=form) == {"shared": expected, "version": 1}
    off = bytearray(point)
    off[-1] ^= 1
    other = ec.generate_private_key(CURVES["p-384" if algorithm == "p-256" else "p-256"]).public_key()
    wrong = other.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for bad in (bytes(off), b"", b"\0", point[:-1], wrong, der[:-1], b"\x04" + bytes(len(point) - 1)):
        with pytest.raises(Refusal) as refusal:
            custody.call("key.agree", key="payments/a", public=bad)
        assert refusal.value.code.name == "key.input_invalid"
    batch = custody.batch("key.agree", [{"public": der}, {"public": b"x"}, {"public": point}], key="payments/a")
    assert [isinstance(result, Refusal) for result in batch] == [False, True, False]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*CURVES, "x25519"]), st.binary(max_size=140), st.data())
def test_any_bytes_are_a_public_key_or_refused(algorithm: str, garbage: bytes, data: st.DataObject) -> None:
    """Garbage, and real keys with a byte changed."""
    if data.draw(st.booleans()):
        key = (
            x25519.X25519PrivateKey.generate()
            if algorithm == "x25519"
            else ec.generate_private_key(CURVES[data.draw(st.sampled_from(sorted(CURVES)))])
        ).public_key()
        encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        changed = bytearray(encoded)
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        garbage = bytes(changed)
    try:
        point = peer_point(Algorithm(algorithm), garbage)
    except Refusal as refusal:
        assert refusal.code.name == "key.input_invalid"  # noqa: PT017 - both ends are fine
        return
    assert len(point) == (32 if algorithm == "x25519" else 1 + 2 * ((CURVES[algorithm].key_size + 7) // 8))


@every_protection
def test_x25519(custody: Custody, protection: str) -> None:
    made = custody.call("key.create", key="payments/x", algorithm="x25519", protection=protection)
    assert (made["protection"], made["purpose"]) == (protection, "agree")
    ours = serialization.load_der_public_key(blob(custody.call("key.public", key="payments/x")["public"]))
    assert isinstance(ours, x25519.X25519PublicKey)
    mine = x25519.X25519PrivateKey.generate()
    expected = mine.exchange(ours)
    der = mine.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for form in (der, mine.public_key().public_bytes_raw()):
        assert custody.call("key.agree", key="payments/x", public=form)["shared"] == expected
    for bad in (bytes(32), b"", b"x" * 31, der[:-1]):  # the all-zero point has small order
        with pytest.raises(Refusal) as refusal:
            custody.call("key.agree", key="payments/x", public=bad)
        assert refusal.value.code.name == "key.input_invalid"


@pytest.mark.parametrize("algorithm", ["ml-kem-768", "ml-kem-1024"])
def test_ml_kem(custody: Custody, algorithm: str) -> None:
    made = custody.call("key.create", key="payments/kem", algorithm=algorithm)
    assert (made["protection"], made["purpose"]) == ("cached", "encapsulate")
    sent = custody.call("key.encapsulate", key="payments/kem")
    ciphertext = blob(sent["ciphertext"])
    assert custody.call("key.decapsulate", key="payments/kem", ciphertext=ciphertext)["shared"] == sent["shared"]
    public = serialization.load_der_public_key(blob(custody.call("key.public", key="payments/kem")["public"]))
    assert isinstance(public, mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey)
    shared, theirs = public.encapsulate()
    later = custody.again()
    assert later.call("key.decapsulate", key="payments/kem", ciphertext=theirs)["shared"] == shared
    later.keyring.openings.clear()
    changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    other = custody.call("key.decapsulate", key="payments/kem", ciphertext=changed)["shared"]
    assert other != sent["shared"]  # FIPS 203: implicit rejection
    for bad in (b"", ciphertext[:-1]):
        with pytest.raises(Refusal) as refusal:
            custody.call("key.decapsulate", key="payments/kem", ciphertext=bad)
        assert refusal.value.code.name == "key.ciphertext_invalid"
    batch = custody.batch("key.encapsulate", [{}, {}], key="payments/kem")
    assert batch[0] != batch[1]


@pytest.mark.parametrize("length", [None, 1, 4096])
def test_random_bytes(custody: Custody, length: int | None) -> None:
    more = {} if length is None else {"length": length}
    drawn = blob(custody.call("random.bytes", **more)["bytes"])
    assert len(drawn) == (length or 32)
    if len(drawn) > 1:
        assert drawn != custody.call("random.bytes", **more)["bytes"]


@pytest.mark.parametrize("length", [0, -1, 4097])
def test_random_bytes_out_of_bounds(custody: Custody, length: int) -> None:
    with pytest.raises(Refusal) as refusal:
        custody.call("random.bytes", length=length)
    assert refusal.value.code.name == "request.invalid"


@pytest.mark.parametrize(
    ("algorithm", "purpose", "method", "field"),
    [
        ("x25519", "agree", "key.agree", "shared"),
        ("p-256", "agree", "key.agree", "shared"),
        ("p-521", "agree", "key.agree", "shared"),
        ("ml-kem-768", "encapsulate", "key.encapsulate", "shared"),
        ("ml-kem-768", "encapsulate", "key.decapsulate", "shared"),
        ("hmac-sha-512", "derive", "key.derive", "derived"),
    ],
)
def test_shared_secrets_leave_no_copies(
    custody: Custody, algorithm: str, purpose: str, method: str, field: str
) -> None:
    """Libraries give some of them as `bytes` only: those objects are zeroed where they lie."""
    custody.call("key.create", key="payments/k", algorithm=algorithm, purpose=purpose, protection="cached")
    given_: dict[str, str | bytes | int] = {"key": "payments/k"}
    if method == "key.agree":
        given_["public"] = blob(custody.call("key.public", key="payments/k")["public"])
    elif method == "key.decapsulate":
        given_["ciphertext"] = blob(custody.call("key.encapsulate", key="payments/k")["ciphertext"])
    elif method == "key.derive":
        given_["length"] = 64
    (result,) = run(custody.handlers[method](make_call(method, None, given_))).results
    assert not isinstance(result, Refusal)
    sealed = result[field]
    assert isinstance(sealed, Sealed)
    secret = bytearray(sealed.lease.view[: sealed.length])
    mask = masked(secret)
    wipe(secret)
    assert copies(mask) == 1  # the reply's lease
    sealed.lease.release()
    assert copies(mask) == 0


def test_oaep_plaintexts_leave_no_copies(custody: Custody) -> None:
    custody.call("key.create", key="payments/k", algorithm="rsa-2048", purpose="decrypt")
    secret = fresh(64)
    mask = masked(secret)
    call = make_call("key.encrypt", None, {"key": "payments/k"})
    call.arguments.values["input"] = memoryview(secret)  # type: ignore[index]  # a dict, in tests
    assert run(custody.handlers["key.encrypt"](call)).results
    assert copies(mask) == 1
    wipe(secret)
    assert copies(mask) == 0
