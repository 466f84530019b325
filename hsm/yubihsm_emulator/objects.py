from dataclasses import dataclass
from typing import Final

from yubihsm_emulator.codes import Algorithm, Capability, ObjectType
from yubihsm_emulator.errors import DeviceError, ErrorCode
from yubihsm_emulator.reader import Reader

LABEL_SIZE: Final = 40
PAGE_SIZE: Final = 126

DELEGATING: Final = frozenset({ObjectType.AUTHENTICATION_KEY, ObjectType.WRAP_KEY, ObjectType.PUBLIC_WRAP_KEY})
"""Types that also carry delegated capabilities, written before their key wherever the whole object travels."""

DELETE: Final = {
    ObjectType.OPAQUE: Capability.DELETE_OPAQUE,
    ObjectType.AUTHENTICATION_KEY: Capability.DELETE_AUTHENTICATION_KEY,
    ObjectType.ASYMMETRIC_KEY: Capability.DELETE_ASYMMETRIC_KEY,
    ObjectType.WRAP_KEY: Capability.DELETE_WRAP_KEY,
    ObjectType.HMAC_KEY: Capability.DELETE_HMAC_KEY,
    ObjectType.TEMPLATE: Capability.DELETE_TEMPLATE,
    ObjectType.OTP_AEAD_KEY: Capability.DELETE_OTP_AEAD_KEY,
    ObjectType.SYMMETRIC_KEY: Capability.DELETE_SYMMETRIC_KEY,
    ObjectType.PUBLIC_WRAP_KEY: Capability.DELETE_PUBLIC_WRAP_KEY,
}
"""The capability that deletes objects of a type."""


@dataclass(frozen=True, slots=True)
class Header:
    """What every command that creates an object says first (53 bytes; 61 with `delegated`).

        0        2              42        44             52          53
        ┌────────┬──────────────┬─────────┬──────────────┬───────────┬╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╮
        │ id u16 │ label [40]   │ domains │ capabilities │ algorithm │ delegated u64 ┊
        │        │ zero padded  │ u16     │ u64          │ u8        │ some types    ┊
        └────────┴──────────────┴─────────┴──────────────┴───────────┴╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╯

    `id` 0 asks the device to choose.
    """

    id: int
    label: bytes
    domains: int
    capabilities: int
    algorithm: Algorithm
    delegated: int = 0

    @classmethod
    def read(cls, reader: Reader, *, delegating: bool = False) -> "Header":
        object_id, label, domains = reader.u16(), reader.take(LABEL_SIZE), reader.u16()
        capabilities, number = reader.u64(), reader.u8()
        return cls(object_id, label, domains, capabilities, algorithm(number), reader.u64() if delegating else 0)

    @classmethod
    def of(cls, one: "StoredObject") -> "Header":
        """What the object's creation said, but for the id that was chosen."""
        return cls(one.id, one.label, one.domains, one.capabilities, one.algorithm, one.delegated)

    def pack(self) -> bytes:
        """All 61 bytes."""
        masks = self.domains.to_bytes(2, "big") + self.capabilities.to_bytes(8, "big")
        return (
            self.id.to_bytes(2, "big")
            + self.label
            + masks
            + bytes((self.algorithm,))
            + self.delegated.to_bytes(8, "big")
        )

    def stored(self, kind: ObjectType, sequence: int, origin: int, material: bytes) -> "StoredObject":
        """The object of this header."""
        return StoredObject(
            kind,
            self.id,
            self.label,
            self.domains,
            self.capabilities,
            self.delegated,
            self.algorithm,
            sequence,
            origin,
            material,
        )


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the device keeps it.

    `material` is the object's private form, exactly the bytes that follow the header of a wrapped object (without
    `delegated`):

        authentication key      K-ENC [16] ‖ K-MAC [16], or X [32] ‖ Y [32]
        RSA (also as wrap key)  p ‖ q ‖ d mod (p-1) ‖ d mod (q-1) ‖ q^-1 mod p ‖ n       7/2 modulus sizes
        EC                      d ‖ X ‖ Y                                                coordinate size each
        Ed25519                 clamped lower half of SHA-512(seed), reversed ‖ upper half ‖ public key [‖ seed]
        HMAC                    block of key XOR 36.. ‖ block of key XOR 5c..
        AES, AES-CCM wrap       key
        public wrap key         n
        OTP AEAD key            nonce id [4] ‖ key
        opaque, template        the bytes
    """

    type: ObjectType
    id: int
    label: bytes
    domains: int
    capabilities: int
    delegated: int
    algorithm: Algorithm
    sequence: int
    origin: int
    material: bytes

    @property
    def body(self) -> bytes:
        """Material as it travels inside a wrapped object: after `delegated` (u64) where the type has it."""
        return self.delegated.to_bytes(8, "big") + self.material if self.type in DELEGATING else self.material

    @property
    def length(self) -> int:
        """Bytes of the body: what GET OBJECT INFO reports and what takes up pages."""
        return len(self.material) + (8 if self.type in DELEGATING else 0)

    @property
    def pages(self) -> int:
        return -(-self.length // PAGE_SIZE)


def algorithm(number: int) -> Algorithm:
    """The algorithm of this number; INVALID DATA where there is none."""
    try:
        return Algorithm(number)
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None


def object_type(number: int) -> ObjectType:
    """The object type of this number; INVALID DATA where there is none."""
    try:
        return ObjectType(number)
    except ValueError:
        raise DeviceError(ErrorCode.INVALID_DATA) from None
