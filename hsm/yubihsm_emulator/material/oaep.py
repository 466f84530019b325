"""EME-OAEP of RFC 8017 section 7.1, from the digest of the label instead of the label.

    encoded message, n bytes (n = bytes of the modulus, h = bytes of the digest)
    +------+--------------------+-------------------------------------------------------+
    | 0x00 | masked seed (h)    | masked data block (n - h - 1)                         |
    +------+--------------------+-------------------------------------------------------+
                                  data block = label digest (h) | 0x00 ... | 0x01 | message

The device's commands carry that digest; libraries want the label. Nothing here runs in constant time: an
emulator has no secrets to keep.
"""

import hashlib
import os

from cryptography.hazmat.primitives import hashes

from yubihsm_emulator.errors import DeviceError, ErrorCode


def mgf1(algorithm: hashes.HashAlgorithm, seed: bytes, length: int) -> bytes:
    """`length` bytes of the mask of RFC 8017 appendix B.2.1."""
    blocks = -(-length // algorithm.digest_size)
    mask = b"".join(
        hashlib.new(algorithm.name, seed + counter.to_bytes(4, "big")).digest() for counter in range(blocks)
    )
    return mask[:length]


def encode(message: bytes, size: int, label_digest: bytes, mgf: hashes.HashAlgorithm) -> bytes:
    """The encoded message for a modulus of `size` bytes; INVALID DATA if `message` is too long for it."""
    length = len(label_digest)
    space = size - 2 * length - 2 - len(message)
    if space < 0:
        raise DeviceError(ErrorCode.INVALID_DATA)
    block = label_digest + bytes(space) + b"\x01" + message
    seed = os.urandom(length)
    masked = _xor(block, mgf1(mgf, seed, len(block)))
    return b"\x00" + _xor(seed, mgf1(mgf, masked, length)) + masked


def decode(encoded: bytes, label_digest: bytes, mgf: hashes.HashAlgorithm) -> bytes:
    """The message in `encoded`; INVALID DATA unless every part of the padding is right."""
    length = len(label_digest)
    if len(encoded) < 2 * length + 2 or encoded[0] != 0:
        raise DeviceError(ErrorCode.INVALID_DATA)
    masked_seed, masked = encoded[1 : 1 + length], encoded[1 + length :]
    seed = _xor(masked_seed, mgf1(mgf, masked, length))
    block = _xor(masked, mgf1(mgf, seed, len(masked)))
    padded = block[length:].lstrip(b"\x00")
    if block[:length] != label_digest or not padded.startswith(b"\x01"):
        raise DeviceError(ErrorCode.INVALID_DATA)
    return padded[1:]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
