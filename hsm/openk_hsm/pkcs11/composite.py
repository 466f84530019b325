"""AES-256-CBC and HMAC-SHA-256, encrypt then MAC, both in the token: for `data` keys where it has no usable AES-GCM.

Two keys, one job each.  The IV is the nonce encrypted under the same key (NIST SP 800-38A, appendix C, first method):
unpredictable, and nothing to be stored.  The MAC is checked before anything is decrypted, so padding tells nothing.

    IV      = AES-256(nonce, 12 bytes | 0, 4 bytes)
    c       = AES-256-CBC(IV, data, PKCS #7 padding)                   1 to 16 bytes longer than the data
    tag     = HMAC-SHA-256("openk.cbc-hmac.1" NUL | u32 big: length of AAD | AAD | nonce | c)        32 bytes
    answer  = c | zeros | tag                                          48 bytes longer than the data, always

The zeros, 0 to 15, are there so that who seals and who opens know lengths beforehand, as with GCM.
AAD and ciphertext are not secret; they are put together for the MAC outside the hand-off region.
"""

from __future__ import annotations

import ctypes
import hmac
import struct
from typing import Final

from openk_hsm.errors import InvalidCiphertext, InvalidInput
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.module import Mech, Module, Ulong
from openk_hsm.seam import Algorithm, KeySpec, Purpose
from openk_hsm.specs import GCM_NONCE

Span = tuple[int, int]
PAIR: Final = KeySpec(Algorithm.AES_256_CBC_HMAC, Purpose.ENCRYPT)
CIPHER_HALF: Final = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)
"""What the first key of a pair is to the token: AES, encrypts and decrypts."""
MAC_HALF: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
MAC_ID_SUFFIX: Final = b"/mac"
"""The second key of a resident pair has the label of the first, and its id with this behind."""
TAG: Final = 32
BLOCK: Final = 16
LONGER: Final = BLOCK + TAG
"""By how many bytes an answer is longer than the data."""
_DOMAIN: Final = b"openk.cbc-hmac.1\x00"
_LENGTH: Final = struct.Struct(">I")


def _padded(length: int) -> tuple[int, int]:
    """The ciphertext's length for that many bytes of data, and how many zeros follow it."""
    return length - length % BLOCK + BLOCK, length % BLOCK


class Composite:
    """`pairs`: slot to the handles of its two keys. `base`: address of the hand-off region."""

    def __init__(self, module: Module, session: int, base: int) -> None:
        self._module = module
        self._session = session
        self._base = base
        self._iv = ctypes.create_string_buffer(BLOCK)
        self._cbc = Mech(ck.CKM_AES_CBC_PAD, ctypes.addressof(self._iv), BLOCK)
        self._hmac = Mech(ck.CKM_SHA256_HMAC, None, 0)
        self._length = Ulong()
        self.pairs: dict[int, tuple[int, int]] = {}

    def encrypt(self, slot: int, param: Span, aad: Span, data: Span, out: int, room: int) -> int:
        """Raises HsmError; InvalidInput when `room` is less than the answer."""
        cipher, mac = self.pairs[slot]
        if room < data[1] + LONGER:
            raise InvalidInput("the answer does not fit")
        length, zeros = _padded(data[1])
        self._set_iv(cipher, self._nonce(param))
        check(self._module.encrypt_init(self._session, ctypes.byref(self._cbc), cipher), "C_EncryptInit with CBC")
        self._length.value = length
        address = self._base + out
        code = self._module.encrypt(self._session, self._base + data[0], data[1], address, ctypes.byref(self._length))
        check(code, "C_Encrypt with CBC")
        tag = self._tag(mac, param, aad, (out, length))
        ctypes.memset(address + length, 0, zeros)
        ctypes.memmove(address + length + zeros, tag, TAG)
        return length + zeros + TAG

    def decrypt(self, slot: int, param: Span, aad: Span, data: Span, out: int, room: int) -> int:
        """Raises HsmError; InvalidCiphertext before anything is decrypted when the tag is not right."""
        cipher, mac = self.pairs[slot]
        nonce = self._nonce(param)
        if data[1] < LONGER:
            raise InvalidCiphertext("a ciphertext is shorter than its padding and tag")
        at = data[0]
        length, zeros = _padded(data[1] - LONGER)
        if room < length:
            raise InvalidInput("the answer does not fit")  # tokens want room for the ciphertext's length
        tail = ctypes.string_at(self._base + at + length, zeros + TAG)
        tag = tail[zeros:]
        if tail[:zeros] != bytes(zeros) or not hmac.compare_digest(tag, self._tag(mac, param, aad, (at, length))):
            raise InvalidCiphertext("the ciphertext does not open")
        self._set_iv(cipher, nonce)
        check(self._module.decrypt_init(self._session, ctypes.byref(self._cbc), cipher), "C_DecryptInit with CBC")
        self._length.value = room
        code = self._module.decrypt(
            self._session, self._base + at, length, self._base + out, ctypes.byref(self._length)
        )
        if code:
            ctypes.memset(self._base + out, 0, room)
        check(code, "C_Decrypt with CBC")  # the MAC was right: whatever is wrong now is the token's
        if self._length.value != data[1] - LONGER:
            ctypes.memset(self._base + out, 0, room)
            raise InvalidCiphertext("a ciphertext was made for data of another length")
        return self._length.value

    def _nonce(self, param: Span) -> bytes:
        if param[1] != GCM_NONCE:
            raise InvalidInput(f"a nonce has {GCM_NONCE} bytes")
        return ctypes.string_at(self._base + param[0], GCM_NONCE)

    def _set_iv(self, cipher: int, nonce: bytes) -> None:
        """The nonce's block, encrypted: CBC's first block after an IV of zeros."""
        ctypes.memset(self._iv, 0, BLOCK)
        answer = ctypes.create_string_buffer(2 * BLOCK)
        self._length.value = len(answer)
        check(self._module.encrypt_init(self._session, ctypes.byref(self._cbc), cipher), "C_EncryptInit of a nonce")
        block = nonce.ljust(BLOCK, b"\x00")
        code = self._module.encrypt(self._session, block, BLOCK, answer, ctypes.byref(self._length))
        check(code, "C_Encrypt of a nonce")
        ctypes.memmove(self._iv, answer, BLOCK)

    def _tag(self, mac: int, param: Span, aad: Span, text: Span) -> bytes:
        parts = (
            _DOMAIN,
            _LENGTH.pack(aad[1]),
            *(ctypes.string_at(self._base + at, length) for at, length in (aad, param, text)),
        )
        message = b"".join(parts)
        answer = ctypes.create_string_buffer(TAG)
        check(self._module.sign_init(self._session, ctypes.byref(self._hmac), mac), "C_SignInit of a pair's MAC")
        self._length.value = TAG
        code = self._module.sign(self._session, message, len(message), answer, ctypes.byref(self._length))
        check(code, "C_Sign of a pair's MAC")
        return answer.raw
