"""Yubico OTP: credentials sealed for a device (AEADs), one-time passwords opened with them.

material of an OTP AEAD key      +--------------+------------------------+
                                 | nonce id [4] | AES key [16, 24 or 32] |
                                 +--------------+------------------------+

AEAD, 36 bytes                   +-----------+---------------------------------------------------+---------+
(AES-CCM; nonce: nonce id ‖      | nonce [6] | ciphertext of credential key [16] ‖ private id [6]| tag [8] |
nonce ‖ 00 00 00)                +-----------+---------------------------------------------------+---------+

OTP, 16 bytes: one AES block under the credential key, little-endian fields
+----------------+---------+---------------+--------------+------------+------------+---------+
| private id [6] | use u16 | timestamp u16 | timestamp u8 | session u8 | random u16 | CRC u16 |
|                | counter | low           | high         | counter    |            |         |
+----------------+---------+---------------+--------------+------------+------------+---------+
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from yubihsm_emulator.codes import Algorithm
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import aes

AEAD_SIZE: Final = 36
NONCE_ID: Final = 4
KEY_SIZE: Final = 16
PRIVATE_ID: Final = 6
OTP_SIZE: Final = 16
_NONCE: Final = 6
_TAG: Final = 8
_RESIDUE: Final = 0xF0B8
_SIZES: Final[dict[int, int]] = {
    Algorithm.AES128_YUBICO_OTP: 16,
    Algorithm.AES192_YUBICO_OTP: 24,
    Algorithm.AES256_YUBICO_OTP: 32,
}


def key_size(algorithm: int) -> int:
    """Bytes of the AES key of the three yubico-otp algorithms; INVALID DATA for any other."""
    size = _SIZES.get(algorithm)
    if size is None:
        raise DeviceError(ErrorCode.INVALID_DATA)
    return size


def generate(algorithm: int, nonce_id: bytes) -> bytes:
    """Material of a new key with that nonce id (4 bytes)."""
    return nonce_id + os.urandom(key_size(algorithm))


def seal(material: bytes, credential: bytes) -> bytes:
    """A fresh AEAD of a credential (key ‖ private id, 22 bytes)."""
    nonce = os.urandom(_NONCE)
    return nonce + AESCCM(material[NONCE_ID:], _TAG).encrypt(_full_nonce(material, nonce), credential, None)


def open_aead(material: bytes, aead: bytes) -> bytes:
    """The credential in an AEAD of 36 bytes; INVALID DATA if it was not sealed by this key."""
    try:
        nonce = _full_nonce(material, aead[:_NONCE])
        return AESCCM(material[NONCE_ID:], _TAG).decrypt(nonce, aead[_NONCE:], None)
    except InvalidTag:
        raise DeviceError(ErrorCode.INVALID_DATA) from None


def decrypt(credential: bytes, otp: bytes) -> bytes:
    """The counters in an OTP, little-endian: use counter u16, session counter u8, timestamp high u8, low u16.

    INVALID OTP if private id or CRC are wrong.
    """
    plain = aes.decrypt_ecb(credential[:KEY_SIZE], otp)
    if plain[:PRIVATE_ID] != credential[KEY_SIZE:] or _crc16(plain) != _RESIDUE:
        raise DeviceError(ErrorCode.INVALID_OTP)
    return plain[6:8] + plain[11:12] + plain[10:11] + plain[8:10]


def _full_nonce(material: bytes, nonce: bytes) -> bytes:
    return material[:NONCE_ID] + nonce + bytes(3)


def _crc16(data: bytes) -> int:
    """CRC-16 of ISO/IEC 13239 without its last inversion."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x8408 if value & 1 else 0)
    return value
