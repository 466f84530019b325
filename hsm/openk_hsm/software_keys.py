"""Key material of the software HSM: making, encoding, and the asymmetric operations.

`encode`/`parse` use what PKCS#11 wraps: the value of a secret key, PKCS#8 DER of a private key.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils, x25519

from openk_hsm.errors import InvalidCiphertext, InvalidInput
from openk_hsm.seam import Algorithm, KeySpec, Mechanism
from openk_hsm.specs import RSA_BITS, SECRET_BYTES

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | x25519.X25519PrivateKey
Material = bytes | PrivateKey

_CURVES: Final[dict[Algorithm, ec.EllipticCurve]] = {
    Algorithm.P256: ec.SECP256R1(),
    Algorithm.P384: ec.SECP384R1(),
    Algorithm.P521: ec.SECP521R1(),
}
_HASHES: Final[dict[Mechanism, hashes.HashAlgorithm]] = {
    Mechanism.RSA_PKCS1_SHA_256: hashes.SHA256(),
    Mechanism.RSA_PKCS1_SHA_384: hashes.SHA384(),
    Mechanism.RSA_PKCS1_SHA_512: hashes.SHA512(),
    Mechanism.RSA_PSS_SHA_256: hashes.SHA256(),
    Mechanism.RSA_PSS_SHA_384: hashes.SHA384(),
    Mechanism.RSA_PSS_SHA_512: hashes.SHA512(),
    Mechanism.RSA_OAEP_SHA_1: hashes.SHA1(),  # noqa: S303 - OAEP does not need collision resistance (RFC 8017, B.1)
    Mechanism.RSA_OAEP_SHA_256: hashes.SHA256(),
    Mechanism.RSA_OAEP_SHA_384: hashes.SHA384(),
    Mechanism.RSA_OAEP_SHA_512: hashes.SHA512(),
}
_ECDSA_HASHES: Final = {
    20: hashes.SHA1(),  # noqa: S303 - only lengths matter below
    28: hashes.SHA224(),
    32: hashes.SHA256(),
    48: hashes.SHA384(),
    64: hashes.SHA512(),
}


def make(algorithm: Algorithm) -> Material:
    size = SECRET_BYTES.get(algorithm)
    if size is not None:
        return os.urandom(size)
    if algorithm in RSA_BITS:
        return rsa.generate_private_key(65537, RSA_BITS[algorithm])
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm is Algorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return x25519.X25519PrivateKey.generate()


def encode(material: Material) -> bytes:
    if isinstance(material, bytes):
        return material
    return material.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def parse(spec: KeySpec, encoded: bytes) -> Material:
    """What `encode` gave. Raises InvalidCiphertext when it is not a key of that spec."""
    size = SECRET_BYTES.get(spec.algorithm)
    if size is not None:
        if len(encoded) != size:
            raise InvalidCiphertext("a wrapped key has the wrong size")
        return encoded
    try:
        key = serialization.load_der_private_key(encoded, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidCiphertext("a wrapped key is not PKCS#8") from None
    if not isinstance(key, PrivateKey) or not _is_of(key, spec.algorithm):
        raise InvalidCiphertext("a wrapped key is of another algorithm")
    return key


def _is_of(key: PrivateKey, algorithm: Algorithm) -> bool:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size == RSA_BITS.get(algorithm)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return algorithm in _CURVES and key.curve.name == _CURVES[algorithm].name
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return algorithm is Algorithm.ED25519
    return algorithm is Algorithm.X25519


def public_der(material: Material) -> bytes | None:
    """SubjectPublicKeyInfo (RFC 5280), or None for a secret key."""
    if isinstance(material, bytes):
        return None
    return material.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: Material, mechanism: Mechanism, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        digest = _ECDSA_HASHES.get(len(data))
        if digest is None:
            raise InvalidInput("ECDSA signs a digest")
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(utils.Prehashed(digest))))
        size = (key.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    private = _rsa(key)
    chosen = _HASHES[mechanism]
    if len(data) != chosen.digest_size:
        raise InvalidInput("RSA signs a digest of its hash's length")
    if mechanism >= Mechanism.RSA_PSS_SHA_256:
        pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
        return private.sign(data, pss, utils.Prehashed(chosen))
    return private.sign(data, padding.PKCS1v15(), utils.Prehashed(chosen))


def _rsa(key: Material) -> rsa.RSAPrivateKey:
    if not isinstance(key, rsa.RSAPrivateKey):
        raise InvalidInput("the key is not an RSA key", device="CKR_KEY_TYPE_INCONSISTENT")
    return key


def oaep(key: Material, mechanism: Mechanism, data: bytes) -> bytes:
    chosen = _HASHES[mechanism]
    try:
        return _rsa(key).decrypt(data, padding.OAEP(padding.MGF1(chosen), chosen, None))
    except ValueError:
        raise InvalidCiphertext("an OAEP ciphertext does not open") from None


def agree(key: Material, point: bytes) -> bytes:
    try:
        if isinstance(key, x25519.X25519PrivateKey):
            return key.exchange(x25519.X25519PublicKey.from_public_bytes(point))
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidInput("the key does not agree", device="CKR_KEY_TYPE_INCONSISTENT")
        if point[:1] != b"\x04":
            raise InvalidInput("a peer's point is uncompressed X9.62")
        return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, point))
    except ValueError:
        raise InvalidInput("a peer's point is not on the key's curve") from None
