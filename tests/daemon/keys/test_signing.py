"""sign and verify, checked by `cryptography` with the public key alone."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from openk_daemon.refusal import Refusal
from openk_hsm.seam import Algorithm
from tests.support.custody import Custody

HASHES = {"sha-256": hashes.SHA256(), "sha-384": hashes.SHA384(), "sha-512": hashes.SHA512()}
USUAL = {"p-256": "sha-256", "p-384": "sha-384", "p-521": "sha-512"}
CURVES = ("p-256", "p-384", "p-521")
ML_DSA = ("ml-dsa-44", "ml-dsa-65", "ml-dsa-87")
ELSEWHERE = [(a, p) for a in (*CURVES, "ed25519") for p in ("wrapped", "resident", "cached")]
RSAS = [("rsa-2048", "wrapped"), ("rsa-2048", "resident"), ("rsa-3072", "wrapped"), ("rsa-4096", "wrapped")]
EVERY = [*ELSEWHERE, *RSAS, *((a, "cached") for a in ML_DSA)]
MESSAGE = b"pay Alice 5"


def blob(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def create(custody: Custody, algorithm: str, protection: str) -> None:
    made = custody.call("key.create", key="payments/k", algorithm=algorithm, protection=protection)
    assert (made["purpose"], made["protection"]) == ("sign", protection)


def public_key(custody: Custody) -> object:
    answer = custody.call("key.public", key="payments/k")
    key = serialization.load_der_public_key(blob(answer["public"]))
    assert serialization.load_pem_public_key(str(answer["pem"]).encode()) == key
    return key


def check(key: object, signature: bytes, message: bytes, hash_: str | None, pad: str | None) -> None:
    """Raises InvalidSignature."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        decode_dss_signature(signature)
        usual = {"secp256r1": "sha-256", "secp384r1": "sha-384", "secp521r1": "sha-512"}[key.curve.name]
        key.verify(signature, message, ec.ECDSA(HASHES[hash_ or usual]))
    elif isinstance(key, rsa.RSAPublicKey):
        algorithm = HASHES[hash_ or "sha-256"]
        scheme = (
            padding.PKCS1v15() if pad == "pkcs1v15" else padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        )
        key.verify(signature, message, scheme, algorithm)
    else:
        assert isinstance(
            key, ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
        )
        key.verify(signature, message)


@pytest.mark.parametrize(("algorithm", "protection"), EVERY)
def test_signatures_verify_elsewhere_and_here(custody: Custody, algorithm: str, protection: str) -> None:
    create(custody, algorithm, protection)
    signed = custody.call("key.sign", key="payments/k", input=MESSAGE)
    signature = blob(signed["signature"])
    check(public_key(custody), signature, MESSAGE, None, None)
    later = custody.again()
    answer = later.call("key.verify", key="payments/k", input=MESSAGE, signature=signature)
    assert answer == {"valid": True, "version": 1}
    check(
        public_key(custody),
        blob(later.call("key.sign", key="payments/k", input=MESSAGE)["signature"]),
        MESSAGE,
        None,
        None,
    )
    later.keyring.openings.clear()
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    for message, sig in ((MESSAGE + b"0", signature), (MESSAGE, changed), (MESSAGE, b""), (MESSAGE, b"\x30" * 70)):
        with pytest.raises(Refusal) as refusal:
            custody.call("key.verify", key="payments/k", input=message, signature=sig)
        assert refusal.value.code.name == "key.signature_invalid"


@pytest.mark.parametrize(
    ("algorithm", "protection"), [("p-256", "wrapped"), ("p-521", "cached"), ("rsa-2048", "wrapped")]
)
@pytest.mark.parametrize("hash_", ["sha-256", "sha-384", "sha-512"])
@pytest.mark.parametrize("pad", [None, "pss", "pkcs1v15"])
@pytest.mark.parametrize("prehashed", [False, True])
def test_every_choice_of_hash_and_padding(
    custody: Custody, algorithm: str, protection: str, hash_: str, pad: str | None, prehashed: bool
) -> None:
    create(custody, algorithm, protection)
    digest = hashlib.new(hash_.replace("-", ""), MESSAGE).digest()
    given: dict[str, str | bool] = {"hash": hash_, "prehashed": prehashed}
    if pad is not None:
        given["padding"] = pad
    data = digest if prehashed else MESSAGE
    if algorithm != "rsa-2048" and pad is not None:
        with pytest.raises(Refusal) as refusal:
            custody.call("key.sign", key="payments/k", input=data, **given)
        assert refusal.value.code.name == "key.input_invalid"
        return
    signature = blob(custody.call("key.sign", key="payments/k", input=data, **given)["signature"])
    check(public_key(custody), signature, MESSAGE, hash_, pad)
    assert custody.call("key.verify", key="payments/k", input=data, signature=signature, **given)["valid"] is True
    if prehashed:
        for method, more in (("key.sign", {}), ("key.verify", {"signature": signature})):
            with pytest.raises(Refusal) as refusal:
                custody.call(method, key="payments/k", input=digest[:-1], **given, **more)
            assert refusal.value.code.name == "key.input_invalid"


@pytest.mark.parametrize("given", [{"hash": "sha-256"}, {"padding": "pss"}, {"prehashed": True}])
@pytest.mark.parametrize(("algorithm", "protection"), [("ed25519", "wrapped"), ("ml-dsa-44", "cached")])
def test_what_hashes_by_itself_leaves_no_choice(
    custody: Custody, algorithm: str, protection: str, given: dict[str, str | bool]
) -> None:
    create(custody, algorithm, protection)
    with pytest.raises(Refusal) as refusal:
        custody.call("key.sign", key="payments/k", input=bytes(32), **given)
    assert refusal.value.code.name == "key.input_invalid"


@pytest.mark.parametrize(
    ("algorithm", "protection"), [("p-256", "wrapped"), ("rsa-2048", "wrapped"), ("p-256", "cached")]
)
def test_sha_1_is_not_signed(custody: Custody, algorithm: str, protection: str) -> None:
    create(custody, algorithm, protection)
    with pytest.raises(Refusal) as refusal:
        custody.call("key.sign", key="payments/k", input=b"x", hash="sha-1")
    assert refusal.value.code.name == "key.input_invalid"


@pytest.mark.parametrize(
    ("algorithm", "protection"), [("p-256", "wrapped"), ("ed25519", "cached"), ("ml-dsa-44", "cached")]
)
def test_batches_and_versions(custody: Custody, algorithm: str, protection: str) -> None:
    create(custody, algorithm, protection)
    messages = [b"%d" % i for i in range(5)]
    signed = custody.batch("key.sign", [{"input": message} for message in messages], key="payments/k")
    items = []
    for message, result in zip(messages, signed, strict=True):
        assert not isinstance(result, Refusal)
        items.append({"input": message, "signature": blob(result["signature"])})
    items[2]["input"] = b"other"
    custody.call("key.rotate", key="payments/k")
    verified = custody.batch("key.verify", items, key="payments/k", version=1)
    assert [isinstance(result, Refusal) for result in verified] == [False, False, True, False, False]
    newest = custody.batch("key.verify", items, key="payments/k")
    assert all(isinstance(result, Refusal) for result in newest)
    assert custody.call("key.public", key="payments/k", version=1) != custody.call("key.public", key="payments/k")


@pytest.mark.parametrize("version", [0, 2, 1 << 31])
def test_versions_that_are_not_there(custody: Custody, version: int) -> None:
    create(custody, "ed25519", "wrapped")
    with pytest.raises(Refusal) as refusal:
        custody.call("key.sign", key="payments/k", input=b"x", version=version)
    assert refusal.value.code.name == "key.version_unknown"


@pytest.mark.parametrize("algorithm", CURVES)
def test_scalars_stay_below_the_order(algorithm: str) -> None:
    from openk_daemon.keys.cached import ORDER, shape_scalar  # noqa: PLC0415 - of this one test

    order = ORDER[Algorithm(algorithm)]
    number = int.from_bytes(order, "big")
    size = len(order)
    for value, good in ((0, False), (1, True), (number - 1, True), (number, False), (number + 1, False)):
        assert shape_scalar(Algorithm(algorithm), memoryview(bytearray(value.to_bytes(size, "big")))) is good
    high = memoryview(bytearray(b"\xff" * size))
    assert shape_scalar(Algorithm(algorithm), high) is False
