"""The plaintext of a wrapped object, and which bodies each type of object may have.

    0         1              9      11          13        15     16          17         18       19            59
    +---------+--------------+------+-----------+---------+------+-----------+----------+--------+-------------+------+
    | wrap    | capabilities | id   | body      | domains | type | algorithm | sequence | origin | label [40]  | body |
    | alg. u8 | u64          | u16  | size u16  | u16     | u8   | u8        | u8       | u8     | zero padded |      |
    +---------+--------------+------+-----------+---------+------+-----------+----------+--------+-------------+------+

    body = material, after `delegated` (u64) for authentication keys, wrap keys and public wrap keys

Sealed by AES-CCM (`ccm`) or RSA-AES key wrap (`rsa_wrap`). The first byte is the algorithm of the wrap key; WRAP DATA
has 0 there instead, so that neither kind of blob opens as the other.
"""

from dataclasses import dataclass, replace
from typing import Final

from yubihsm_emulator.codes import Algorithm, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.material import aes, ccm, eddsa, hmac_key, keypairs, otp, rsa
from yubihsm_emulator.objects import DELEGATING, LABEL_SIZE, StoredObject, algorithm, object_type
from yubihsm_emulator.reader import Reader

HEADER: Final = 59
_DELEGATED: Final = 8
_OPAQUE: Final = frozenset({Algorithm.OPAQUE_DATA, Algorithm.OPAQUE_X509_CERTIFICATE})
_AUTHENTICATION: Final = {Algorithm.AES128_YUBICO_AUTHENTICATION: 32, Algorithm.EC_P256_YUBICO_AUTHENTICATION: 64}


@dataclass(frozen=True, slots=True)
class WrappedObject:
    """An object as it travels. `wrap_algorithm` is a number of its own: no check has been made of it."""

    wrap_algorithm: int
    content: StoredObject

    def pack(self) -> bytes:
        one = self.content
        fields = (
            (self.wrap_algorithm, 1),
            (one.capabilities, 8),
            (one.id, 2),
            (len(one.body), 2),
            (one.domains, 2),
            (one.type, 1),
            (one.algorithm, 1),
            (one.sequence, 1),
            (one.origin, 1),
        )
        return b"".join(value.to_bytes(size, "big") for value, size in fields) + one.label + one.body

    @classmethod
    def parse(cls, plaintext: bytes) -> "WrappedObject":
        """INVALID DATA for bytes that are no object: sizes that do not add up, unknown type or algorithm, a body that
        is no key of that algorithm."""
        if len(plaintext) < HEADER:
            raise DeviceError(ErrorCode.INVALID_DATA)
        reader = Reader(plaintext)
        wrap_algorithm, capabilities, object_id = reader.u8(), reader.u64(), reader.u16()
        size, domains = reader.u16(), reader.u16()
        kind, used = object_type(reader.u8()), algorithm(reader.u8())
        sequence, origin, label = reader.u8(), reader.u8(), reader.take(LABEL_SIZE)
        body = reader.rest()
        if size != len(body):
            raise DeviceError(ErrorCode.INVALID_DATA)
        delegated = 0
        if kind in DELEGATING:
            if size < _DELEGATED:
                raise DeviceError(ErrorCode.INVALID_DATA)
            delegated, body = int.from_bytes(body[:_DELEGATED], "big"), body[_DELEGATED:]
        material = checked(kind, used, body)
        one = StoredObject(kind, object_id, label, domains, capabilities, delegated, used, sequence, origin, material)
        return cls(wrap_algorithm, one)

    def without_seed(self) -> "WrappedObject":
        """An Ed25519 key without its seed; any other object as it is."""
        one = self.content
        if one.type is not ObjectType.ASYMMETRIC_KEY or one.algorithm is not Algorithm.EC_ED25519:
            return self
        return replace(self, content=replace(one, material=eddsa.without_seed(one.material)))


def checked(kind: ObjectType, used: Algorithm, material: bytes) -> bytes:
    """`material` itself if an object of that type and algorithm can have it, else INVALID DATA."""
    if kind is ObjectType.ASYMMETRIC_KEY:
        return keypairs.from_body(used, material)
    if kind is ObjectType.WRAP_KEY and rsa.is_rsa(used):
        return rsa.from_body(used, material)
    if kind is ObjectType.HMAC_KEY:
        return hmac_key.from_body(used, material)
    if kind is ObjectType.PUBLIC_WRAP_KEY:
        return rsa.from_modulus(used, material)
    if _sized(kind, used, len(material)):
        return material
    raise DeviceError(ErrorCode.INVALID_DATA)


def _sized(kind: ObjectType, used: Algorithm, size: int) -> bool:
    """Whether an object whose material may be any bytes may be as long as this."""
    match kind:
        case ObjectType.WRAP_KEY:
            return size == ccm.key_size(used)
        case ObjectType.SYMMETRIC_KEY:
            return size == aes.key_size(used)
        case ObjectType.OTP_AEAD_KEY:
            return size == otp.NONCE_ID + otp.key_size(used)
        case ObjectType.AUTHENTICATION_KEY:
            return size == _AUTHENTICATION.get(used)
        case ObjectType.OPAQUE:
            return used in _OPAQUE and size > 0
        case ObjectType.TEMPLATE:
            return used is Algorithm.TEMPLATE_SSH and size > 0
        case _:
            return False
