"""Hot operations on a YubiHSM: one command each, from the hand-off region and back into it.

data    WRAP DATA with an AES-256-CCM wrap key that can do nothing else; what AES-GCM would authenticate is
        digested into the plaintext and compared in constant time after UNWRAP DATA:

        nonce 13 | CCM( 00 | SHA-256(domain | AAD) 32 | data ) | tag 16            62 bytes more than the data
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from yubihsm.defs import ALGORITHM, COMMAND

from openk_hsm.errors import HsmError, InvalidCiphertext, InvalidInput
from openk_hsm.seam import Algorithm, KeySpec, Mechanism, OpCode
from openk_hsm.specs import COORDINATE_BYTES, DIGEST_BYTES, OPCODES, RSA_BITS
from openk_hsm.yubihsm.device import Device
from openk_hsm.yubihsm.kinds import mechanisms_of

DATA_OVERHEAD: Final = 62
_DATA_DOMAIN: Final = b"openk.wrap-data.1\x00"
_DIGEST: Final = 32
_RANDOM: Final = 1024
_ID: Final = struct.Struct(">H")
_PSS: Final = struct.Struct(">BH")
_MGF1: Final = {
    20: ALGORITHM.RSA_MGF1_SHA1,
    32: ALGORITHM.RSA_MGF1_SHA256,
    48: ALGORITHM.RSA_MGF1_SHA384,
    64: ALGORITHM.RSA_MGF1_SHA512,
}
_OAEP: Final = {
    Mechanism.RSA_OAEP_SHA_1: "sha1",
    Mechanism.RSA_OAEP_SHA_256: "sha256",
    Mechanism.RSA_OAEP_SHA_384: "sha384",
    Mechanism.RSA_OAEP_SHA_512: "sha512",
}
_WRAP_DATA_CODES: Final = frozenset({OpCode.ENCRYPT, OpCode.DECRYPT})


class Hot:
    """`keys`: slot to the object's number and what it is."""

    def __init__(self, device: Device, region: memoryview) -> None:
        self._device = device
        self._region = region
        self.keys: dict[int, tuple[int, KeySpec]] = {}

    def random(self, at: int, length: int) -> int:
        region = self._region
        for begin in range(at, at + length, _RANDOM):
            size = min(_RANDOM, at + length - begin)
            answer = self._device.random(size)
            if len(answer) != size:
                raise HsmError("the device gave too few random bytes")
            region[begin : begin + size] = answer
        return length

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        number, _ = self._key(slot, OpCode.MAC, mechanism)
        return self._put(self._device.ask(COMMAND.SIGN_HMAC, _ID.pack(number), self._in(at, length)), out, room)

    def sign(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        number, spec = self._key(slot, OpCode.SIGN, mechanism)
        ask, target, data = self._device.ask, _ID.pack(number), self._in(at, length)
        if mechanism is Mechanism.EDDSA:
            return self._put(ask(COMMAND.SIGN_EDDSA, target, data), out, room)
        if mechanism is Mechanism.ECDSA:
            return self._put(_raw(bytes(ask(COMMAND.SIGN_ECDSA, target, data)), spec.algorithm), out, room)
        if length != DIGEST_BYTES[mechanism]:
            raise InvalidInput(f"{mechanism.name} signs a digest of {DIGEST_BYTES[mechanism]} bytes")
        if mechanism < Mechanism.RSA_PSS_SHA_256:
            return self._put(ask(COMMAND.SIGN_PKCS1, target, data), out, room)
        return self._put(ask(COMMAND.SIGN_PSS, target, _PSS.pack(_MGF1[length], length), data), out, room)

    def encrypt(
        self,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int:
        number, _ = self._key(slot, OpCode.ENCRYPT, mechanism)
        _refuse_param(param)
        most = self._device.most - DATA_OVERHEAD - 2
        if data[1] > most:
            raise InvalidInput(f"this YubiHSM wraps at most {most} bytes at once")
        answer = self._device.ask(COMMAND.WRAP_DATA, _ID.pack(number), self._bound(aad), self._in(*data))
        return self._put(answer, out, room)

    def decrypt(
        self,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int:
        number, spec = self._key(slot, OpCode.DECRYPT, mechanism)
        target, sealed = _ID.pack(number), self._in(*data)
        if mechanism is not Mechanism.WRAP_DATA:
            return self._decrypt_oaep(target, mechanism, spec, sealed, out, room)
        _refuse_param(param)
        if not DATA_OVERHEAD <= len(sealed) <= self._device.most - 2:
            raise InvalidCiphertext("wrapped data have an impossible length")
        opened = self._device.ask(COMMAND.UNWRAP_DATA, target, sealed, invalid=InvalidCiphertext)
        if len(opened) < _DIGEST or not hmac.compare_digest(opened[:_DIGEST], self._bound(aad)):
            raise InvalidCiphertext("wrapped data belong to another context")
        return self._put(opened[_DIGEST:], out, room)

    def _decrypt_oaep(
        self, target: bytes, mechanism: Mechanism, spec: KeySpec, sealed: memoryview, out: int, room: int
    ) -> int:
        if len(sealed) != RSA_BITS[spec.algorithm] // 8:
            raise InvalidCiphertext("an OAEP block is as long as the key's modulus")
        label = hashlib.new(_OAEP[mechanism]).digest()  # of no label
        mgf1 = bytes((_MGF1[len(label)],))
        opened = self._device.ask(COMMAND.DECRYPT_OAEP, target, mgf1, sealed, label, invalid=InvalidCiphertext)
        return self._put(opened, out, room)

    def agree(self, slot: int, at: int, length: int, out: int, room: int) -> int:
        number, spec = self._key(slot, OpCode.AGREE, Mechanism.ECDH)
        point = self._in(at, length)
        if length != 1 + 2 * COORDINATE_BYTES[spec.algorithm] or point[0] != 4:
            raise InvalidInput("a peer's point is uncompressed and of the key's curve")
        return self._put(self._device.ask(COMMAND.DERIVE_ECDH, _ID.pack(number), point), out, room)

    def _key(self, slot: int, code: OpCode, mechanism: Mechanism) -> tuple[int, KeySpec]:
        found = self.keys.get(slot)
        if found is None:
            raise HsmError(f"no key is loaded in slot {slot}", device="YUBIHSM_SLOT")
        codes = OPCODES.get(mechanism, _WRAP_DATA_CODES)
        if mechanism not in mechanisms_of(found[1]) or code not in codes:
            raise InvalidInput(f"the key is not for {mechanism.name}", device="YUBIHSM_PURPOSE")
        return found

    def _in(self, at: int, length: int) -> memoryview:
        return self._region[at : at + length]

    def _bound(self, aad: tuple[int, int]) -> bytes:
        digest = hashlib.sha256(_DATA_DOMAIN)
        digest.update(self._in(*aad))
        return digest.digest()

    def _put(self, answer: bytes | memoryview, out: int, room: int) -> int:
        if len(answer) > room:
            raise InvalidInput("the answer does not fit", device="YUBIHSM_ROOM")
        self._region[out : out + len(answer)] = answer
        return len(answer)


def _refuse_param(param: tuple[int, int]) -> None:
    if param[1]:
        raise InvalidInput("a YubiHSM chooses the nonce of wrapped data itself")


def _raw(der: bytes, algorithm: Algorithm) -> bytes:
    """r || s, as the seam has it."""
    size = COORDINATE_BYTES[algorithm]
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    except (ValueError, OverflowError):
        raise HsmError("the device's signature is none") from None
