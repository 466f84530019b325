"""The verifier's own ECDSA and RSA, with `cryptography` (OpenSSL) as the oracle: on signatures, on what is nearly one, and
on the numbers that implementations have got wrong (as in Project Wycheproof)."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from itertools import product

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

import openk_tools.audit_verify as verifier
from tests.daemon.audit.logs import P256_KEY, rsa_key, spki_of

Q, N = verifier._Q, verifier._N
G = verifier._GENERATOR
POINT = spki_of(P256_KEY)[-64:]
MESSAGE = b"openk.test/audit\n7\nAAAA\n"
DIGEST = int.from_bytes(hashlib.sha256(MESSAGE).digest(), "big")
EDGES = [0, 1, 2, N - 1, N, N + 1, Q - 1, Q, Q + 1, 2**255, 2**256 - 1, 2**256]


def oracle(public: bytes, message: bytes, signature: bytes) -> bool:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
    try:
        key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def encoded(point: verifier.Affine) -> bytes:
    assert point is not None
    return point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def key_for(point: tuple[int, int], s: int) -> tuple[bytes, bytes]:
    """The public key under which `MESSAGE` has the signature (x of `point`, s), with that signature: SEC 1, 4.1.6."""
    r = point[0] % N
    inverse = pow(r, -1, N)
    key = verifier._plus(verifier._times(s * inverse % N, point), verifier._times(-DIGEST * inverse % N, G))
    return encoded(key), encode_dss_signature(r, s)


def test_a_signature_and_its_message() -> None:
    signature = P256_KEY.sign(MESSAGE, ec.ECDSA(SHA256()))
    assert verifier.verify_p256(POINT, MESSAGE, signature)
    assert not verifier.verify_p256(POINT, MESSAGE + b"\n", signature)
    assert not verifier.verify_p256(POINT[::-1], MESSAGE, signature)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, N - 1), st.binary(max_size=60))
def test_p256_agrees_on_signatures(private: int, message: bytes) -> None:
    key = ec.derive_private_key(private, ec.SECP256R1())
    signature = key.sign(message, ec.ECDSA(SHA256()))
    r, s = decode_dss_signature(signature)
    point = spki_of(key)[-64:]
    assert verifier.verify_p256(point, message, signature)
    assert verifier.verify_p256(point, message, encode_dss_signature(r, N - s)), "ECDSA's other form, as everywhere"
    assert not verifier.verify_p256(point, message, encode_dss_signature(s, r))


def test_p256_agrees_on_numbers_at_the_edges() -> None:
    for r, s in product(EDGES, EDGES):
        signature = encode_dss_signature(r, s)
        assert not verifier.verify_p256(POINT, MESSAGE, signature), (r, s)
        assert not oracle(POINT, MESSAGE, signature)


def test_a_number_out_of_range_is_not_taken_for_its_remainder() -> None:
    r, s = decode_dss_signature(P256_KEY.sign(MESSAGE, ec.ECDSA(SHA256())))
    for shift in (N, 2 * N, 1 << 256):
        for pair in ((r + shift, s), (r, s + shift), (r + shift, s + shift)):
            assert not verifier.verify_p256(POINT, MESSAGE, encode_dss_signature(*pair))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_p256_agrees_on_der_that_is_nearly_right(data: st.DataObject) -> None:
    signature = P256_KEY.sign(MESSAGE, ec.ECDSA(SHA256(), deterministic_signing=True))
    spoilt = bytearray(signature)
    at = data.draw(st.integers(0, len(signature) - 1) | st.integers(0, 5))
    match data.draw(st.sampled_from(["set", "insert", "delete", "cut", "append"])):
        case "set":
            spoilt[at] = data.draw(st.integers(0, 255))
        case "insert":
            spoilt.insert(at, data.draw(st.sampled_from([0, 0x80, 0x81, 0xFF])))
            spoilt[1] = (spoilt[1] + data.draw(st.integers(0, 1))) % 256
        case "delete":
            del spoilt[at]
        case "cut":
            del spoilt[at:]
        case _:
            spoilt += data.draw(st.binary(min_size=1, max_size=3))
    assert verifier.verify_p256(POINT, MESSAGE, bytes(spoilt)) == oracle(POINT, MESSAGE, bytes(spoilt))
    assert verifier.verify_p256(POINT, MESSAGE, bytes(spoilt)) == (bytes(spoilt) == signature)


def der(tag: int, content: bytes, length: bytes = b"") -> bytes:
    return bytes((tag,)) + (length or bytes((len(content),))) + content


def test_der_has_one_form_only() -> None:
    r, s = (der(2, number.to_bytes(33, "big").lstrip(b"\0")) for number in (N // 3, N // 5))
    assert verifier._der_integers(der(0x30, r + s)) == (N // 3, N // 5)
    size = len(r + s)
    for signature in (
        der(0x30, r + s, bytes((0x81, size))),
        der(0x30, r + s, bytes((0x82, 0, size))),
        der(0x30, r + s, b"\x80") + b"\0\0",
        der(0x31, r + s),
        der(0x30, r + s + der(5, b"")),
        der(0x30, r),
        der(0x30, r + s) + b"\0",
        der(0x30, der(2, b"") + s),
        der(0x30, der(2, b"\0" + r[2:]) + s),
        der(0x30, der(2, b"\xff") + s),
        der(0x30, der(4, r[2:]) + s),
        b"",
        b"\x30",
    ):
        with pytest.raises(verifier.Bad):
            verifier._der_integers(signature)


@given(st.binary(max_size=80))
def test_any_bytes_as_a_signature_are_refused(signature: bytes) -> None:
    assert not verifier.verify_p256(POINT, MESSAGE, signature)


@pytest.mark.parametrize("s", [1, 2, N // 2, N - 1])
@pytest.mark.parametrize("factor", [1, 2, N - 1, 12345])
def test_p256_agrees_on_special_multiples(s: int, factor: int) -> None:
    point = verifier._times(factor, G)
    assert point is not None
    public, signature = key_for(point, s)
    assert verifier.verify_p256(public, MESSAGE, signature)
    assert oracle(public, MESSAGE, signature)


def test_the_x_of_a_point_may_be_above_the_order() -> None:
    """Then r is its remainder; an implementation that compares without reducing refuses this."""
    x = next(x for x in range(N, Q) if verifier._on_curve((x, _root(x))))
    public, signature = key_for((x, _root(x)), 7)
    assert decode_dss_signature(signature)[0] == x - N
    assert verifier.verify_p256(public, MESSAGE, signature)
    assert oracle(public, MESSAGE, signature)


def _root(x: int) -> int:
    """y of the point with that x, if there is one (p = 3 mod 4)."""
    return pow(x**3 - 3 * x + verifier._B, (Q + 1) // 4, Q)


def test_a_sum_at_infinity_is_no_signature() -> None:
    for r, s in ((1, 1), (5, 7), (N - 1, N - 1)):
        public = encoded(verifier._times(-DIGEST * pow(r, -1, N) % N, G))
        signature = encode_dss_signature(r, s)
        assert not verifier.verify_p256(public, MESSAGE, signature)
        assert not oracle(public, MESSAGE, signature)


@pytest.mark.parametrize("s", [3, N // 7])
def test_both_parts_of_the_sum_may_be_the_same_point(s: int) -> None:
    doubled = verifier._times(2 * DIGEST * pow(s, -1, N) % N, G)
    assert doubled is not None
    r = doubled[0] % N
    public, signature = encoded(verifier._times(DIGEST * pow(r, -1, N) % N, G)), encode_dss_signature(r, s)
    assert verifier.verify_p256(public, MESSAGE, signature)
    assert oracle(public, MESSAGE, signature)


@pytest.mark.parametrize(
    ("x", "y"),
    [(0, 0), (1, 1), (G[0], G[1] + 1), (G[0] + 1, G[1]), (G[0], 0), (Q, G[1]), (5, Q + 1), (2**256 - 1, 2**256 - 1)],
)
def test_a_key_that_is_no_point_is_refused(x: int, y: int) -> None:
    point = x.to_bytes(32, "big") + y.to_bytes(32, "big")
    signature = P256_KEY.sign(MESSAGE, ec.ECDSA(SHA256()))
    assert not verifier.verify_p256(point, MESSAGE, signature)
    with pytest.raises(verifier.Wrong, match="neither"):
        verifier.read_public_key(b64encode(spki_of(P256_KEY)[:-64] + point).decode())


def test_a_coordinate_is_not_taken_for_its_remainder() -> None:
    """x + p has the same remainder, and fits into 32 bytes where x is small."""
    x = next(x for x in range(5, 2**16) if verifier._on_curve((x, _root(x))))
    assert verifier._on_curve((x, _root(x)))
    assert not verifier._on_curve((x + Q, _root(x)))


# --- RSA ---


def rsa_oracle(key: rsa.RSAPrivateKey, message: bytes, signature: bytes) -> bool:
    try:
        key.public_key().verify(signature, message, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def agree(key: rsa.RSAPrivateKey, message: bytes, signature: bytes) -> bool:
    numbers = key.public_key().public_numbers()
    ours = verifier.verify_rsa(numbers.n, numbers.e, message, signature)
    assert ours == rsa_oracle(key, message, signature)
    return ours


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=60), st.data())
def test_rsa_agrees(message: bytes, data: st.DataObject) -> None:
    key = rsa_key()
    signature = key.sign(message, padding.PKCS1v15(), SHA256())
    assert agree(key, message, signature)
    assert not agree(key, message + b"x", signature)
    flipped = bytearray(signature)
    flipped[data.draw(st.integers(0, len(signature) - 1))] ^= data.draw(st.integers(1, 255))
    assert not agree(key, message, bytes(flipped))


INFO = verifier._DIGEST_INFO
PADDINGS: dict[str, Callable[[int, bytes], bytes]] = {
    "right": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 54) + b"\x00" + INFO + digest,
    "block of another type": lambda size, digest: b"\x00\x02" + b"\xff" * (size - 54) + b"\x00" + INFO + digest,
    "other filling": lambda size, digest: b"\x00\x01" + b"\xfe" * (size - 54) + b"\x00" + INFO + digest,
    "no separator": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 53) + INFO + digest,
    "short filling, and garbage behind": lambda size, digest: (b"\x00\x01" + b"\xff" * 8 + b"\x00" + INFO + digest).ljust(size, b"\x00"),
    "garbage before the digest": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 58) + b"\x00" + b"1234" + INFO + digest,
    "no parameters": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 52) + b"\x00" + bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest,
    "a long length": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 55) + b"\x00" + b"\x30\x81" + INFO[1:] + digest,
    "another hash": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 54) + b"\x00" + INFO.replace(b"\x02\x01\x05", b"\x02\x02\x05") + digest,
    "a bare digest": lambda size, digest: b"\x00\x01" + b"\xff" * (size - 35) + b"\x00" + digest,
    "nothing": lambda size, _: b"\x00\x01" + b"\xff" * (size - 3) + b"\x00",
}  # fmt: skip


@pytest.mark.parametrize("name", PADDINGS)
def test_rsa_agrees_on_paddings(name: str) -> None:
    key = rsa_key()
    numbers = key.private_numbers()
    size = key.key_size // 8
    block = PADDINGS[name](size, hashlib.sha256(MESSAGE).digest())
    assert len(block) == size
    signature = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n).to_bytes(size, "big")
    assert agree(key, MESSAGE, signature) == (name == "right")


def test_an_rsa_signature_has_one_length_and_one_form() -> None:
    key = rsa_key()
    signature = key.sign(MESSAGE, padding.PKCS1v15(), SHA256())
    above = int.from_bytes(signature, "big") + key.public_key().public_numbers().n
    for other in (b"", signature[:-1], signature + b"\0", b"\0" + signature, bytes(384), b"\xff" * 384):
        assert not agree(key, MESSAGE, other)
    if above < 1 << 3072:
        assert not agree(key, MESSAGE, above.to_bytes(384, "big"))


@given(st.binary(max_size=100))
def test_any_bytes_are_no_rsa_key(data: bytes) -> None:
    with pytest.raises(verifier.Bad):
        verifier._rsa_numbers(data)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(1, 255))
def test_an_rsa_key_with_a_changed_head_is_none(at: int, change: int) -> None:
    """Algorithm, lengths, leading bits: whatever comes before the modulus' own bytes has one form."""
    spoilt = bytearray(spki_of(rsa_key()))
    spoilt[min(at, spoilt.index(bytes.fromhex("02820181")) + 3)] ^= change
    with pytest.raises(verifier.Bad):
        verifier._rsa_numbers(bytes(spoilt))


@pytest.mark.parametrize("bits", [1024, 1536])
def test_a_short_rsa_key_is_no_key(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits)
    with pytest.raises(verifier.Wrong):
        verifier.read_public_key(b64encode(spki_of(key)).decode())
