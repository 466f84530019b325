"""Which keys openk makes, what each may do, and how it is numbered in bindings: one table for every back end.

Purposes follow NIST SP 800-57 part 1, section 5.2; usage bits stand for the PKCS#11 v3.1 attributes
CKA_ENCRYPT ... CKA_DERIVE (section 4.8 and 4.10).  Numbers are part of stored blobs: they never change meaning.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

from openk_hsm.seam import Algorithm, KeySpec, Mechanism, OpCode, Operation, Purpose


class Attributes(IntFlag):
    """What is bound to a wrapped key and asserted on every object. 16 bits."""

    ENCRYPT = 1 << 0
    DECRYPT = 1 << 1
    SIGN = 1 << 2
    VERIFY = 1 << 3
    WRAP = 1 << 4
    UNWRAP = 1 << 5
    DERIVE = 1 << 6
    SENSITIVE = 1 << 8
    PRIVATE = 1 << 9
    EXTRACTABLE = 1 << 10
    MODIFIABLE = 1 << 11
    COPYABLE = 1 << 12


ALGORITHM_NUMBERS: Final[dict[Algorithm, int]] = {
    Algorithm.AES_256_KWP: 1,
    Algorithm.AES_256_GCM: 2,
    Algorithm.HMAC_SHA_256: 3,
    Algorithm.HMAC_SHA_384: 4,
    Algorithm.HMAC_SHA_512: 5,
    Algorithm.ED25519: 6,
    Algorithm.P256: 7,
    Algorithm.P384: 8,
    Algorithm.P521: 9,
    Algorithm.RSA_2048: 10,
    Algorithm.RSA_3072: 11,
    Algorithm.RSA_4096: 12,
    Algorithm.X25519: 13,
    Algorithm.ML_DSA_44: 14,
    Algorithm.ML_DSA_65: 15,
    Algorithm.ML_DSA_87: 16,
    Algorithm.ML_KEM_512: 17,
    Algorithm.ML_KEM_768: 18,
    Algorithm.ML_KEM_1024: 19,
    Algorithm.AES_256_CBC_HMAC: 21,  # 20 is free: AES_256_CCM keys are never wrapped
}
PURPOSE_NUMBERS: Final[dict[Purpose, int]] = {
    Purpose.KEY_WRAP: 1,
    Purpose.ENCRYPT: 2,
    Purpose.WRAP: 3,
    Purpose.MAC: 4,
    Purpose.DERIVE: 5,
    Purpose.SIGN: 6,
    Purpose.DECRYPT: 7,
    Purpose.AGREE: 8,
    Purpose.ENCAPSULATE: 9,
}
_ALGORITHMS: Final = {number: algorithm for algorithm, number in ALGORITHM_NUMBERS.items()}
_PURPOSES: Final = {number: purpose for purpose, number in PURPOSE_NUMBERS.items()}

USAGE: Final[dict[Purpose, Attributes]] = {
    Purpose.KEY_WRAP: Attributes.WRAP | Attributes.UNWRAP,
    Purpose.ENCRYPT: Attributes.ENCRYPT | Attributes.DECRYPT,
    Purpose.WRAP: Attributes.ENCRYPT | Attributes.DECRYPT,
    Purpose.MAC: Attributes.SIGN,
    Purpose.DERIVE: Attributes.SIGN,  # SP 800-108 and HKDF-Expand are made of HMAC blocks
    Purpose.SIGN: Attributes.SIGN,
    Purpose.DECRYPT: Attributes.DECRYPT,
    Purpose.AGREE: Attributes.DERIVE,
    Purpose.ENCAPSULATE: Attributes.DECRYPT,
}

SECRET_BYTES: Final[dict[Algorithm, int]] = {
    Algorithm.AES_256_KWP: 32,
    Algorithm.AES_256_GCM: 32,
    Algorithm.HMAC_SHA_256: 32,
    Algorithm.HMAC_SHA_384: 48,
    Algorithm.HMAC_SHA_512: 64,
}
"""Sizes of secret keys; an HMAC key is as long as its hash (RFC 2104, section 3)."""

RSA_BITS: Final[dict[Algorithm, int]] = {
    Algorithm.RSA_2048: 2048,
    Algorithm.RSA_3072: 3072,
    Algorithm.RSA_4096: 4096,
}
CURVES: Final = frozenset({Algorithm.P256, Algorithm.P384, Algorithm.P521})
COORDINATE_BYTES: Final[dict[Algorithm, int]] = {
    Algorithm.P256: 32,
    Algorithm.P384: 48,
    Algorithm.P521: 66,
    Algorithm.X25519: 32,
    Algorithm.ED25519: 32,
}
GCM_NONCE: Final = 12
GCM_TAG: Final = 16

_RSA_SIGN: Final = frozenset(
    {
        Mechanism.RSA_PKCS1_SHA_256,
        Mechanism.RSA_PKCS1_SHA_384,
        Mechanism.RSA_PKCS1_SHA_512,
        Mechanism.RSA_PSS_SHA_256,
        Mechanism.RSA_PSS_SHA_384,
        Mechanism.RSA_PSS_SHA_512,
    }
)
_RSA_DECRYPT: Final = frozenset(
    {
        Mechanism.RSA_OAEP_SHA_1,
        Mechanism.RSA_OAEP_SHA_256,
        Mechanism.RSA_OAEP_SHA_384,
        Mechanism.RSA_OAEP_SHA_512,
    }
)


def _table() -> dict[KeySpec, frozenset[Mechanism]]:
    gcm = frozenset({Mechanism.AES_GCM})
    table: dict[KeySpec, frozenset[Mechanism]] = {
        KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP): frozenset(),
        KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT): gcm,
        KeySpec(Algorithm.AES_256_GCM, Purpose.WRAP): gcm,
        KeySpec(Algorithm.ED25519, Purpose.SIGN): frozenset({Mechanism.EDDSA}),
        KeySpec(Algorithm.X25519, Purpose.AGREE): frozenset({Mechanism.ECDH}),
    }
    for algorithm, mechanism in (
        (Algorithm.HMAC_SHA_256, Mechanism.HMAC_SHA_256),
        (Algorithm.HMAC_SHA_384, Mechanism.HMAC_SHA_384),
        (Algorithm.HMAC_SHA_512, Mechanism.HMAC_SHA_512),
    ):
        for purpose in (Purpose.MAC, Purpose.DERIVE):
            table[KeySpec(algorithm, purpose)] = frozenset({mechanism})
    for algorithm in (Algorithm.P256, Algorithm.P384, Algorithm.P521):
        table[KeySpec(algorithm, Purpose.SIGN)] = frozenset({Mechanism.ECDSA})
        table[KeySpec(algorithm, Purpose.AGREE)] = frozenset({Mechanism.ECDH})
    for algorithm in RSA_BITS:
        table[KeySpec(algorithm, Purpose.SIGN)] = _RSA_SIGN
        table[KeySpec(algorithm, Purpose.DECRYPT)] = _RSA_DECRYPT
    return table


MECHANISMS: Final[dict[KeySpec, frozenset[Mechanism]]] = _table()
"""Every key that openk may hold in an HSM, and the mechanisms such a key may be used with."""

OPCODES: Final[dict[Mechanism, frozenset[OpCode]]] = {
    mechanism: frozenset({OpCode.ENCRYPT, OpCode.DECRYPT})
    if mechanism is Mechanism.AES_GCM
    else frozenset({OpCode.MAC})
    if Mechanism.HMAC_SHA_256 <= mechanism <= Mechanism.HMAC_SHA_512
    else frozenset({OpCode.DECRYPT})
    if mechanism in _RSA_DECRYPT
    else frozenset({OpCode.AGREE})
    if mechanism is Mechanism.ECDH
    else frozenset({OpCode.SIGN})
    for mechanism in Mechanism
    if mechanism not in {Mechanism.NONE, Mechanism.WRAP_DATA, Mechanism.AES_CBC_HMAC}
}
"""WRAP_DATA and AES_CBC_HMAC are not among them: one back end each has them, for keys that clients cannot name."""

DIGEST_BYTES: Final[dict[Mechanism, int]] = {
    Mechanism.HMAC_SHA_256: 32,
    Mechanism.HMAC_SHA_384: 48,
    Mechanism.HMAC_SHA_512: 64,
    Mechanism.RSA_PKCS1_SHA_256: 32,
    Mechanism.RSA_PKCS1_SHA_384: 48,
    Mechanism.RSA_PKCS1_SHA_512: 64,
    Mechanism.RSA_PSS_SHA_256: 32,
    Mechanism.RSA_PSS_SHA_384: 48,
    Mechanism.RSA_PSS_SHA_512: 64,
}


def bound_attributes(spec: KeySpec) -> Attributes:
    """The attributes of the lasting object of that spec, and no others. Raises KeyError for no purpose of ours."""
    return USAGE[spec.purpose] | Attributes.SENSITIVE | Attributes.PRIVATE


def spec_of(algorithm: int, purpose: int) -> KeySpec | None:
    """The spec with these numbers, or None when this version of openk knows none."""
    known_algorithm = _ALGORITHMS.get(algorithm)
    known_purpose = _PURPOSES.get(purpose)
    if known_algorithm is None or known_purpose is None:
        return None
    return KeySpec(known_algorithm, known_purpose)


_DECRYPT: Final = OpCode.DECRYPT  # a name, because looking up a member of an Enum costs 60 ns


def room_of(operation: Operation) -> int:
    """Bytes of the hand-off region for an answer: tokens want room for the ciphertext's length to decrypt into."""
    if operation.code is _DECRYPT:
        return max(operation.room, len(operation.data))
    return operation.room
