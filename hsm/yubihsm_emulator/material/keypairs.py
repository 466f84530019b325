"""Asymmetric keys of every kind, told apart by their algorithm: RSA, eight curves, Ed25519."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec as ec_types
from cryptography.hazmat.primitives.asymmetric import ed25519 as ed25519_types
from cryptography.hazmat.primitives.asymmetric import rsa as rsa_types

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import ec, eddsa, rsa


def generate(algorithm: int) -> bytes:
    """Material of a new key; INVALID DATA for an algorithm that is not asymmetric (so everywhere here)."""
    if algorithm == Algorithm.EC_ED25519:
        return eddsa.generate()
    return rsa.generate(algorithm) if rsa.is_rsa(algorithm) else ec.generate(algorithm)


def from_private(algorithm: int, private: bytes) -> bytes:
    """Material from what PUT ASYMMETRIC KEY brings: p | q, a private value or a seed."""
    if algorithm == Algorithm.EC_ED25519:
        return eddsa.from_seed(private)
    return rsa.from_primes(algorithm, private) if rsa.is_rsa(algorithm) else ec.from_private_value(algorithm, private)


def from_body(algorithm: int, body: bytes) -> bytes:
    """`body` itself if it is the whole material of such a key, else INVALID DATA."""
    if algorithm == Algorithm.EC_ED25519:
        return eddsa.from_body(body)
    return rsa.from_body(algorithm, body) if rsa.is_rsa(algorithm) else ec.from_body(algorithm, body)


def public(algorithm: int, material: bytes) -> bytes:
    """The public part as GET PUBLIC KEY tells it: modulus, X | Y, or the 32 bytes of Ed25519."""
    if algorithm == Algorithm.EC_ED25519:
        return eddsa.point(material)
    return rsa.modulus(material) if rsa.is_rsa(algorithm) else ec.point(material)


def to_pkcs8(algorithm: int, material: bytes) -> bytes:
    """PKCS#8 DER; INVALID DATA for an Ed25519 key without its seed."""
    if algorithm == Algorithm.EC_ED25519:
        return eddsa.to_pkcs8(material)
    return rsa.to_pkcs8(material) if rsa.is_rsa(algorithm) else ec.to_pkcs8(algorithm, material)


def from_pkcs8(algorithm: int, encoded: bytes) -> bytes:
    """Material of a PKCS#8 DER key; INVALID DATA if it is none or not of this algorithm."""
    try:
        key = serialization.load_der_private_key(encoded, None)
    except Exception:  # noqa: BLE001 - the parser has many exceptions for bytes it does not understand
        raise DeviceError(ErrorCode.INVALID_DATA) from None
    if isinstance(key, ed25519_types.Ed25519PrivateKey) and algorithm == Algorithm.EC_ED25519:
        return eddsa.from_seed(key.private_bytes_raw())
    if isinstance(key, rsa_types.RSAPrivateKey) and rsa.is_rsa(algorithm):
        if key.key_size == rsa.modulus_size(algorithm) * 8:
            return rsa.material_of(key)
    elif isinstance(key, ec_types.EllipticCurvePrivateKey) and ec.curve_of(key) == algorithm:
        return ec.material_of(key)
    raise DeviceError(ErrorCode.INVALID_DATA)
