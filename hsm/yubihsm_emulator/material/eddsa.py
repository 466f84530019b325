"""Ed25519 keys (RFC 8032, pure).

material, 128 bytes; 96 where the seed is not known
+-----------------------------------+-----------------------+-----------------+╌╌╌╌╌╌╌╌╌╌╌+
| scalar: clamped lower half of     | upper half of         | public key [32] ┊ seed [32] ┊
| SHA-512(seed), big-endian [32]    | SHA-512(seed) [32]    |                 ┊           ┊
+-----------------------------------+-----------------------+-----------------+╌╌╌╌╌╌╌╌╌╌╌+
"""

import hashlib
import os
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import edwards

SEED_SIZE: Final = 32
SEEDLESS_SIZE: Final = 96
SIZE: Final = 128


def generate() -> bytes:
    """Material of a new key."""
    return from_seed(os.urandom(SEED_SIZE))


def from_seed(seed: bytes) -> bytes:
    """Material of the key with this seed; WRONG LENGTH unless it has 32 bytes."""
    if len(seed) != SEED_SIZE:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    hashed = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(hashed[:32], "little") & (1 << 254) - 8 | 1 << 254
    return scalar.to_bytes(32, "big") + hashed[32:] + edwards.multiple_of_base(scalar) + seed


def from_body(body: bytes) -> bytes:
    """`body` itself if it is a key, with or without its seed, whose parts belong together; else INVALID DATA."""
    if len(body) == SIZE:
        if from_seed(body[SEEDLESS_SIZE:]) != body:
            raise DeviceError(ErrorCode.INVALID_DATA)
    elif len(body) != SEEDLESS_SIZE or edwards.multiple_of_base(int.from_bytes(body[:32], "big")) != point(body):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return body


def without_seed(material: bytes) -> bytes:
    return material[:SEEDLESS_SIZE]


def point(material: bytes) -> bytes:
    """The public key."""
    return material[64:SEEDLESS_SIZE]


def sign(material: bytes, message: bytes) -> bytes:
    """The signature of `message`, 64 bytes; the same with and without the seed."""
    if len(material) == SIZE:
        return _loaded(material[SEEDLESS_SIZE:]).sign(message)
    public = point(material)
    nonce = _number(material[32:64] + message)
    commitment = edwards.multiple_of_base(nonce)
    challenge = _number(commitment + public + message)
    response = (nonce + challenge * int.from_bytes(material[:32], "big")) % edwards.ORDER
    return commitment + response.to_bytes(32, "little")


def to_pkcs8(material: bytes) -> bytes:
    """PKCS#8 DER (RFC 8410) of the key; INVALID DATA without its seed, which is all that format has room for."""
    if len(material) != SIZE:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return _loaded(material[SEEDLESS_SIZE:]).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % edwards.ORDER


@lru_cache(maxsize=128)
def _loaded(seed: bytes) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed)
