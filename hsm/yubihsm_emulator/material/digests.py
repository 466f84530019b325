"""Hash algorithms as the device's commands name them: by an algorithm number, or by the length of a digest."""

import hashlib
from typing import Final

from cryptography.hazmat.primitives import hashes

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode

_SHA1: Final = hashes.SHA1()  # noqa: S303 - the device has it
_SHA256: Final = hashes.SHA256()
_SHA384: Final = hashes.SHA384()
_SHA512: Final = hashes.SHA512()

_BY_LENGTH: Final[dict[int, hashes.HashAlgorithm]] = {20: _SHA1, 32: _SHA256, 48: _SHA384, 64: _SHA512}
_BY_ALGORITHM: Final[dict[int, hashes.HashAlgorithm]] = {
    Algorithm.RSA_PKCS1_SHA1: _SHA1,
    Algorithm.RSA_PKCS1_SHA256: _SHA256,
    Algorithm.RSA_PKCS1_SHA384: _SHA384,
    Algorithm.RSA_PKCS1_SHA512: _SHA512,
    Algorithm.RSA_OAEP_SHA1: _SHA1,
    Algorithm.RSA_OAEP_SHA256: _SHA256,
    Algorithm.RSA_OAEP_SHA384: _SHA384,
    Algorithm.RSA_OAEP_SHA512: _SHA512,
    Algorithm.RSA_MGF1_SHA1: _SHA1,
    Algorithm.RSA_MGF1_SHA256: _SHA256,
    Algorithm.RSA_MGF1_SHA384: _SHA384,
    Algorithm.RSA_MGF1_SHA512: _SHA512,
}
_MGF1: Final = range(Algorithm.RSA_MGF1_SHA1, Algorithm.RSA_MGF1_SHA512 + 1)
_OAEP: Final = range(Algorithm.RSA_OAEP_SHA1, Algorithm.RSA_OAEP_SHA512 + 1)
_PKCS1: Final = range(Algorithm.RSA_PKCS1_SHA1, Algorithm.RSA_PKCS1_SHA512 + 1)


def is_digest_length(length: int) -> bool:
    """Whether a digest of so many bytes names one of the four hashes."""
    return length in _BY_LENGTH


def variant(family: Algorithm, length: int) -> Algorithm:
    """The member for digests of `length` bytes of a family that is numbered SHA-1, 256, 384, 512.

    `family` is its first member. WRONG LENGTH where there is none.
    """
    if length not in _BY_LENGTH:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return Algorithm(family + list(_BY_LENGTH).index(length))


def hash_of_length(length: int) -> hashes.HashAlgorithm:
    """The hash whose digest has this length in bytes: 20, 32, 48 or 64, else WRONG LENGTH."""
    found = _BY_LENGTH.get(length)
    if found is None:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    return found


def mgf1_hash(algorithm: int) -> hashes.HashAlgorithm:
    """The hash of mgf1-sha1 ... mgf1-sha512; any other algorithm is INVALID DATA."""
    return _chosen(algorithm, _MGF1)


def oaep_hash(algorithm: int) -> hashes.HashAlgorithm:
    """The hash of rsa-oaep-sha1 ... rsa-oaep-sha512; any other algorithm is INVALID DATA."""
    return _chosen(algorithm, _OAEP)


def pkcs1_hash(algorithm: int) -> hashes.HashAlgorithm:
    """The hash of rsa-pkcs1-sha1 ... rsa-pkcs1-sha512; any other algorithm is INVALID DATA."""
    return _chosen(algorithm, _PKCS1)


def digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    """The hash of `data`."""
    return hashlib.new(algorithm.name, data).digest()


def _chosen(algorithm: int, among: range) -> hashes.HashAlgorithm:
    if algorithm not in among:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return _BY_ALGORITHM[algorithm]
