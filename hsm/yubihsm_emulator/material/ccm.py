"""AES-CCM as wrap keys use it (RFC 3610; no associated data).

blob
+------------+-----------------------------+----------+
| nonce [13] | ciphertext, as long as the  | tag [16] |
|            | plaintext                   |          |
+------------+-----------------------------+----------+
"""

import os
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode

NONCE: Final = 13
TAG: Final = 16
_SIZES: Final[dict[int, int]] = {
    Algorithm.AES128_CCM_WRAP: 16,
    Algorithm.AES192_CCM_WRAP: 24,
    Algorithm.AES256_CCM_WRAP: 32,
}


def is_ccm(algorithm: int) -> bool:
    return algorithm in _SIZES


def key_size(algorithm: int) -> int:
    """Bytes of a key of the three aes-ccm-wrap algorithms; INVALID DATA for any other."""
    size = _SIZES.get(algorithm)
    if size is None:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return size


def generate(algorithm: int) -> bytes:
    """A new key."""
    return os.urandom(key_size(algorithm))


def seal(key: bytes, plaintext: bytes) -> bytes:
    """A blob with a random nonce."""
    nonce = os.urandom(NONCE)
    return nonce + _cipher(key).encrypt(nonce, plaintext, None)


def open_blob(key: bytes, blob: bytes) -> bytes:
    """The plaintext; WRONG LENGTH if there is no room for nonce and tag, INVALID DATA if the tag is not right."""
    if len(blob) < NONCE + TAG:
        raise DeviceError(ErrorCode.WRONG_LENGTH)
    try:
        return _cipher(key).decrypt(blob[:NONCE], blob[NONCE:], None)
    except InvalidTag:
        raise DeviceError(ErrorCode.INVALID_DATA) from None


@lru_cache(maxsize=256)
def _cipher(key: bytes) -> AESCCM:
    return AESCCM(key, TAG)
