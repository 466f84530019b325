"""HMAC keys (RFC 2104).

material, two blocks of the hash (64 bytes each for SHA-1 and SHA-256, 128 for SHA-384 and SHA-512)
+--------------------------------------+--------------------------------------+
| key, zero padded, XOR 36 36 36 ...   | key, zero padded, XOR 5c 5c 5c ...   |
+--------------------------------------+--------------------------------------+
"""

import hashlib
import hmac
import os
from typing import Final

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode

_HASHES: Final[dict[int, str]] = {
    Algorithm.HMAC_SHA1: "sha1",
    Algorithm.HMAC_SHA256: "sha256",
    Algorithm.HMAC_SHA384: "sha384",
    Algorithm.HMAC_SHA512: "sha512",
}
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


def mac_size(algorithm: int) -> int:
    """Bytes of a MAC; INVALID DATA for an algorithm that is no HMAC."""
    return hashlib.new(_hash(algorithm)).digest_size


def generate(algorithm: int) -> bytes:
    """Material of a new key as long as the hash's digest."""
    return from_key(algorithm, os.urandom(mac_size(algorithm)))


def from_key(algorithm: int, key: bytes) -> bytes:
    """Material of a key of 1 byte to a block; WRONG LENGTH for any other."""
    block = hashlib.new(_hash(algorithm)).block_size
    if not 1 <= len(key) <= block:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    padded = key.ljust(block, b"\x00")
    return padded.translate(_INNER) + padded.translate(_OUTER)


def from_body(algorithm: int, body: bytes) -> bytes:
    """`body` itself if it is two blocks made from one key, else INVALID DATA."""
    block = hashlib.new(_hash(algorithm)).block_size
    if len(body) != 2 * block or body[:block].translate(_INNER) != body[block:].translate(_OUTER):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return body


def sign(algorithm: int, material: bytes, data: bytes) -> bytes:
    """The MAC of `data`."""
    name, half = _hash(algorithm), len(material) // 2
    inner = hashlib.new(name, material[:half] + data).digest()
    return hashlib.new(name, material[half:] + inner).digest()


def verify(algorithm: int, material: bytes, mac: bytes, data: bytes) -> bool:
    """Whether `mac` is the MAC of `data`."""
    return hmac.compare_digest(sign(algorithm, material, data), mac)


def _hash(algorithm: int) -> str:
    name = _HASHES.get(algorithm)
    if name is None:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return name
