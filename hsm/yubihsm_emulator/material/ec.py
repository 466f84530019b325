"""Keys on the eight elliptic curves: ECDSA over digests of any length, ECDH.

material, 3c bytes (c = bytes of a coordinate)
+---------------+-------+-------+
| private value | X     | Y     |
+---------------+-------+-------+
"""

from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode

_CURVES: Final[dict[int, ec.EllipticCurve]] = {
    Algorithm.EC_P224: ec.SECP224R1(),
    Algorithm.EC_P256: ec.SECP256R1(),
    Algorithm.EC_P384: ec.SECP384R1(),
    Algorithm.EC_P521: ec.SECP521R1(),
    Algorithm.EC_K256: ec.SECP256K1(),
    Algorithm.EC_BP256: ec.BrainpoolP256R1(),
    Algorithm.EC_BP384: ec.BrainpoolP384R1(),
    Algorithm.EC_BP512: ec.BrainpoolP512R1(),
}


def is_ec(algorithm: int) -> bool:
    return algorithm in _CURVES


def coordinate_size(algorithm: int) -> int:
    """Bytes of a coordinate on the algorithm's curve; INVALID DATA if it is no curve."""
    return (_curve(algorithm).key_size + 7) // 8


def generate(algorithm: int) -> bytes:
    """Material of a new key."""
    return material_of(ec.generate_private_key(_curve(algorithm)))


def from_private_value(algorithm: int, value: bytes) -> bytes:
    """Material of the key with this private value of c bytes.

    WRONG LENGTH for another length, INVALID DATA for 0 or a value not below the order of the curve.
    """
    if len(value) != coordinate_size(algorithm):
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    try:
        return material_of(ec.derive_private_key(int.from_bytes(value, "big"), _curve(algorithm)))
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None


def from_body(algorithm: int, body: bytes) -> bytes:
    """`body` itself if its private value and point belong together, else INVALID DATA."""
    size = coordinate_size(algorithm)
    if len(body) != 3 * size or from_private_value(algorithm, body[:size]) != body:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return body


def material_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Material of a key of the `cryptography` package."""
    numbers = key.private_numbers()
    size = (key.key_size + 7) // 8
    parts = (numbers.private_value, numbers.public_numbers.x, numbers.public_numbers.y)
    return b"".join(part.to_bytes(size, "big") for part in parts)


def curve_of(key: ec.EllipticCurvePrivateKey) -> int | None:
    """The device's algorithm for the curve of a key, or None."""
    return next((algorithm for algorithm, curve in _CURVES.items() if curve.name == key.curve.name), None)


def point(material: bytes) -> bytes:
    """X | Y of a private key's material."""
    return material[len(material) // 3 :]


def private_key(algorithm: int, material: bytes) -> ec.EllipticCurvePrivateKey:
    return _loaded(algorithm, material)


def to_pkcs8(algorithm: int, material: bytes) -> bytes:
    """PKCS#8 DER of the key."""
    return _loaded(algorithm, material).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def sign(algorithm: int, material: bytes, digest: bytes) -> bytes:
    """A DER ECDSA-Sig over `digest`, of which the leftmost bits count if it is longer than the order (X9.62).

    The nonce is random and unbiased (OpenSSL's).
    """
    # Prehashed wants a hash of exactly this length; SHAKE256 is one of any length, and no hash is computed.
    return _loaded(algorithm, material).sign(digest, ec.ECDSA(Prehashed(hashes.SHAKE256(len(digest)))))


def derive(algorithm: int, material: bytes, peer: bytes) -> bytes:
    """The X coordinate (c bytes) of ECDH with `peer`, a point as 0x04 | X | Y.

    WRONG LENGTH if it is not 1 + 2c bytes, INVALID DATA if it is no point of the curve.
    """
    if len(peer) != 1 + 2 * coordinate_size(algorithm):
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(_curve(algorithm), peer)
        return _loaded(algorithm, material).exchange(ec.ECDH(), public)
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None


def _curve(algorithm: int) -> ec.EllipticCurve:
    curve = _CURVES.get(algorithm)
    if curve is None:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return curve


@lru_cache(maxsize=128)
def _loaded(algorithm: int, material: bytes) -> ec.EllipticCurvePrivateKey:
    size = coordinate_size(algorithm)
    d, x, y = (int.from_bytes(material[i * size : (i + 1) * size], "big") for i in range(3))
    return ec.EllipticCurvePrivateNumbers(d, ec.EllipticCurvePublicNumbers(x, y, _curve(algorithm))).private_key()
