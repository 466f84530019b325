import os

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec as reference
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from tests.support.emulated_device import key_of, refused
from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import ec, keypairs

CURVES: dict[Algorithm, reference.EllipticCurve] = {
    Algorithm.EC_P224: reference.SECP224R1(),
    Algorithm.EC_P256: reference.SECP256R1(),
    Algorithm.EC_P384: reference.SECP384R1(),
    Algorithm.EC_P521: reference.SECP521R1(),
    Algorithm.EC_K256: reference.SECP256K1(),
    Algorithm.EC_BP256: reference.BrainpoolP256R1(),
    Algorithm.EC_BP384: reference.BrainpoolP384R1(),
    Algorithm.EC_BP512: reference.BrainpoolP512R1(),
}
each_curve = pytest.mark.parametrize("algorithm", CURVES, ids=lambda one: one.name)


@each_curve
def test_material_has_the_drawn_parts(algorithm: Algorithm) -> None:
    material = key_of(algorithm)
    size = {Algorithm.EC_P224: 28, Algorithm.EC_P521: 66}.get(algorithm, CURVES[algorithm].key_size // 8)
    assert (ec.coordinate_size(algorithm), len(material)) == (size, 3 * size)
    numbers = ec.private_key(algorithm, material).private_numbers()
    assert material[:size] == numbers.private_value.to_bytes(size, "big")
    assert ec.point(material) == b"".join(
        one.to_bytes(size, "big") for one in (numbers.public_numbers.x, numbers.public_numbers.y)
    )
    assert ec.from_private_value(algorithm, material[:size]) == material
    assert ec.from_body(algorithm, material) == material
    assert keypairs.from_pkcs8(algorithm, ec.to_pkcs8(algorithm, material)) == material


@each_curve
def test_private_values_outside_the_order_are_refused(algorithm: Algorithm) -> None:
    size = ec.coordinate_size(algorithm)
    for value in (bytes(size), b"\xff" * size):
        refused(ErrorCode.INVALID_DATA, lambda value=value: ec.from_private_value(algorithm, value))
    refused(ErrorCode.WRONG_LENGTH, lambda: ec.from_private_value(algorithm, bytes(size - 1)))
    wrong = key_of(algorithm)[:size] + key_of(algorithm)[2 * size :] + key_of(algorithm)[size : 2 * size]
    refused(ErrorCode.INVALID_DATA, lambda: ec.from_body(algorithm, wrong))
    refused(ErrorCode.INVALID_DATA, lambda: ec.from_body(algorithm, key_of(algorithm)[1:]))


@each_curve
@pytest.mark.parametrize(
    "hashed",
    [hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()],
    ids=lambda one: one.name,
)
def test_signatures_of_digests_of_every_hash_verify(algorithm: Algorithm, hashed: hashes.HashAlgorithm) -> None:
    digest = os.urandom(hashed.digest_size)
    signature = ec.sign(algorithm, key_of(algorithm), digest)
    public = ec.private_key(algorithm, key_of(algorithm)).public_key()
    public.verify(signature, digest, reference.ECDSA(Prehashed(hashed)))


@pytest.mark.parametrize("algorithm", [Algorithm.EC_P384, Algorithm.EC_P521, Algorithm.EC_BP512])
def test_zeros_on_the_left_change_nothing_while_the_digest_fits(algorithm: Algorithm) -> None:
    digest = os.urandom(32)
    signature = ec.sign(algorithm, key_of(algorithm), bytes(16) + digest)
    public = ec.private_key(algorithm, key_of(algorithm)).public_key()
    public.verify(signature, digest, reference.ECDSA(Prehashed(hashes.SHA256())))


def test_of_a_long_digest_the_leftmost_bits_count() -> None:
    key = ec.private_key(Algorithm.EC_P256, key_of(Algorithm.EC_P256))
    digest = os.urandom(66)
    signature = ec.sign(Algorithm.EC_P256, key_of(Algorithm.EC_P256), digest)
    key.public_key().verify(signature, digest[:32], reference.ECDSA(Prehashed(hashes.SHA256())))


def test_66_bytes_on_p521_lose_their_last_seven_bits() -> None:
    number = os.urandom(64)
    digest = (int.from_bytes(number, "big") << 7 | 0x55).to_bytes(66, "big")
    signature = ec.sign(Algorithm.EC_P521, key_of(Algorithm.EC_P521), digest)
    public = ec.private_key(Algorithm.EC_P521, key_of(Algorithm.EC_P521)).public_key()
    public.verify(signature, number, reference.ECDSA(Prehashed(hashes.SHA512())))


def test_nonces_are_new_each_time() -> None:
    first, second = (
        decode_dss_signature(ec.sign(Algorithm.EC_P256, key_of(Algorithm.EC_P256), bytes(32))) for _ in "12"
    )
    assert first[0] != second[0]


@each_curve
def test_ecdh_agrees_with_the_other_side(algorithm: Algorithm) -> None:
    other = reference.generate_private_key(CURVES[algorithm])
    size = ec.coordinate_size(algorithm)
    numbers = other.public_key().public_numbers()
    peer = b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
    mine = ec.private_key(algorithm, key_of(algorithm)).public_key()
    assert ec.derive(algorithm, key_of(algorithm), peer) == other.exchange(reference.ECDH(), mine)


@pytest.mark.parametrize(
    ("algorithm", "private", "peer", "shared"),
    [
        pytest.param(
            Algorithm.EC_P256,
            "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
            "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287"
            "db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
            "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
            id="NIST CAVP KAS ECC CDH P-256 count 0",
        ),
        pytest.param(
            Algorithm.EC_BP256,
            "81db1ee100150ff2ea338d708271be38300cb54241d79950f77b063039804f1d",
            "8d2d688c6cf93e1160ad04cc4429117dc2c41825e1e9fca0addd34e6f1b39f7b"
            "990c57520812be512641e47034832106bc7d3e8dd0e4c7f1136d7006547cec6a",
            "89afc39d41d3b327814b80940b042590f96556ec91e6ae7939bce31f3a18bf2b",
            id="RFC 7027 A.1",
        ),
    ],
)
def test_ecdh_gives_published_secrets(algorithm: Algorithm, private: str, peer: str, shared: str) -> None:
    material = ec.from_private_value(algorithm, bytes.fromhex(private))
    assert ec.derive(algorithm, material, b"\x04" + bytes.fromhex(peer)).hex() == shared


@each_curve
def test_points_off_the_curve_are_refused(algorithm: Algorithm) -> None:
    point = ec.point(key_of(algorithm))
    for wrong in (bytes(len(point)), b"\xff" * len(point), point[:-1] + bytes((point[-1] ^ 1,)), point[::-1]):
        refused(ErrorCode.INVALID_DATA, lambda wrong=wrong: ec.derive(algorithm, key_of(algorithm), b"\x04" + wrong))
    for shape in (point, b"\x04" + point[1:], b"\x04" + point + b"\x00", b""):
        refused(ErrorCode.WRONG_LENGTH, lambda shape=shape: ec.derive(algorithm, key_of(algorithm), shape))
    refused(ErrorCode.INVALID_DATA, lambda: ec.derive(algorithm, key_of(algorithm), b"\x06" + point))


@given(st.binary(max_size=140))
def test_any_bytes_as_a_peer_are_an_error_of_the_device(peer: bytes) -> None:
    with pytest.raises(DeviceError):
        ec.derive(Algorithm.EC_P256, key_of(Algorithm.EC_P256), peer)


def test_algorithms_that_are_no_curve_are_refused() -> None:
    for algorithm in set(Algorithm) - set(CURVES):
        assert not ec.is_ec(algorithm)
        refused(ErrorCode.INVALID_DATA, lambda algorithm=algorithm: ec.generate(algorithm))
