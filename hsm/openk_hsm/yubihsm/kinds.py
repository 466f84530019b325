"""What openk's keys are on a YubiHSM: object type, algorithm, the command that makes one, exact capabilities.

One key, one job: no object gets a capability that its purpose does not need, none may leave the device
(`exportable-under-wrap` is never set), and delegated capabilities are empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND, OBJECT

from openk_hsm.seam import Algorithm, KeySpec, Mechanism, Purpose
from openk_hsm.specs import COORDINATE_BYTES, MECHANISMS, RSA_BITS

NONE: Final = CAPABILITY(0)
WRAPPED_KEYS: Final = KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP)
DATA: Final = KeySpec(Algorithm.AES_256_CCM, Purpose.ENCRYPT)
PAGE: Final = 126
"""Bytes of a storage page; an object takes whole pages."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`bytes`: what the object takes on the device (for the count of free pages)."""

    type: OBJECT
    algorithm: ALGORITHM
    make: COMMAND
    capabilities: CAPABILITY
    bytes: int

    @property
    def pages(self) -> int:
        return -(-self.bytes // PAGE)


_ASYMMETRIC: Final = (OBJECT.ASYMMETRIC_KEY, COMMAND.GENERATE_ASYMMETRIC_KEY)
_EC: Final = {
    Algorithm.P256: ALGORITHM.EC_P256,
    Algorithm.P384: ALGORITHM.EC_P384,
    Algorithm.P521: ALGORITHM.EC_P521,
}
_RSA: Final = {
    Algorithm.RSA_2048: ALGORITHM.RSA_2048,
    Algorithm.RSA_3072: ALGORITHM.RSA_3072,
    Algorithm.RSA_4096: ALGORITHM.RSA_4096,
}
_HMAC: Final = {
    Algorithm.HMAC_SHA_256: (ALGORITHM.HMAC_SHA256, 128),
    Algorithm.HMAC_SHA_384: (ALGORITHM.HMAC_SHA384, 256),
    Algorithm.HMAC_SHA_512: (ALGORITHM.HMAC_SHA512, 256),
}


def _table() -> dict[KeySpec, Kind]:
    wrap = (OBJECT.WRAP_KEY, ALGORITHM.AES256_CCM_WRAP, COMMAND.GENERATE_WRAP_KEY)
    table = {
        WRAPPED_KEYS: Kind(*wrap, NONE, 40),  # nothing is wrapped here, so it may do nothing
        DATA: Kind(*wrap, CAPABILITY.WRAP_DATA | CAPABILITY.UNWRAP_DATA, 40),
        KeySpec(Algorithm.ED25519, Purpose.SIGN): _pair(ALGORITHM.EC_ED25519, CAPABILITY.SIGN_EDDSA, 128),
    }
    for algorithm, (number, size) in _HMAC.items():
        kind = Kind(OBJECT.HMAC_KEY, number, COMMAND.GENERATE_HMAC_KEY, CAPABILITY.SIGN_HMAC, size)
        table[KeySpec(algorithm, Purpose.MAC)] = table[KeySpec(algorithm, Purpose.DERIVE)] = kind
    for algorithm, curve in _EC.items():
        size = 3 * COORDINATE_BYTES[algorithm]
        table[KeySpec(algorithm, Purpose.SIGN)] = _pair(curve, CAPABILITY.SIGN_ECDSA, size)
        table[KeySpec(algorithm, Purpose.AGREE)] = _pair(curve, CAPABILITY.DERIVE_ECDH, size)
    for algorithm, modulus in _RSA.items():
        size = RSA_BITS[algorithm] // 8 * 7 // 2
        sign = CAPABILITY.SIGN_PKCS | CAPABILITY.SIGN_PSS
        table[KeySpec(algorithm, Purpose.SIGN)] = _pair(modulus, sign, size)
        table[KeySpec(algorithm, Purpose.DECRYPT)] = _pair(modulus, CAPABILITY.DECRYPT_OAEP, size)
    return table


def _pair(algorithm: ALGORITHM, capabilities: CAPABILITY, size: int) -> Kind:
    return Kind(_ASYMMETRIC[0], algorithm, _ASYMMETRIC[1], capabilities, size)


KINDS: Final[dict[KeySpec, Kind]] = _table()
"""Every key that a YubiHSM may hold for openk. No AES-GCM and no X25519: the device has neither."""

NAMES: Final[dict[ALGORITHM, str]] = {
    **{kind.algorithm: spec.algorithm.value for spec, kind in KINDS.items() if spec != WRAPPED_KEYS},
    ALGORITHM.AES256_CCM_WRAP: Algorithm.AES_256_CCM.value,
}
"""How object lists call what openk makes; others go by the device's own names."""

SESSION_NEEDS: Final = (
    CAPABILITY.GENERATE_ASYMMETRIC_KEY
    | CAPABILITY.GENERATE_WRAP_KEY
    | CAPABILITY.GENERATE_HMAC_KEY
    | CAPABILITY.DELETE_ASYMMETRIC_KEY
    | CAPABILITY.DELETE_WRAP_KEY
    | CAPABILITY.DELETE_HMAC_KEY
    | CAPABILITY.SIGN_PKCS
    | CAPABILITY.SIGN_PSS
    | CAPABILITY.SIGN_ECDSA
    | CAPABILITY.SIGN_EDDSA
    | CAPABILITY.SIGN_HMAC
    | CAPABILITY.DECRYPT_OAEP
    | CAPABILITY.DERIVE_ECDH
    | CAPABILITY.WRAP_DATA
    | CAPABILITY.UNWRAP_DATA
    | CAPABILITY.GET_PSEUDO_RANDOM
    | CAPABILITY.GET_LOG_ENTRIES
    | CAPABILITY.GET_OPTION
)
"""What the authentication key must be able to do, or openk does not start."""

ATTESTATION_NEEDS: Final = CAPABILITY.SIGN_ATTESTATION_CERTIFICATE | CAPABILITY.GET_OPAQUE
"""For `openk hsm attest` only. GET_OPAQUE reads the device's own certificate."""

DELEGATED_NEEDS: Final = (
    CAPABILITY.SIGN_PKCS
    | CAPABILITY.SIGN_PSS
    | CAPABILITY.SIGN_ECDSA
    | CAPABILITY.SIGN_EDDSA
    | CAPABILITY.SIGN_HMAC
    | CAPABILITY.DECRYPT_OAEP
    | CAPABILITY.DERIVE_ECDH
    | CAPABILITY.WRAP_DATA
    | CAPABILITY.UNWRAP_DATA
)
"""What keys that openk makes may do."""

_YUBICO_NAMES: Final[dict[CAPABILITY, str]] = {
    CAPABILITY.PUT_ASYMMETRIC: "put-asymmetric-key",
    CAPABILITY.PUT_HMAC_KEY: "put-mac-key",
    CAPABILITY.SIGN_PSS: "sign-pss",
    CAPABILITY.PUBLIC_WRAP_KEY_WRITE: "put-public-wrap-key",
    CAPABILITY.PUBLIC_WRAP_KEY_DELETE: "delete-public-wrap-key",
}


def capability_names(capabilities: CAPABILITY) -> list[str]:
    """As yubihsm-shell writes them."""
    return [
        _YUBICO_NAMES.get(one, (one.name or hex(one)).lower().replace("_", "-"))
        for one in CAPABILITY
        if one & capabilities
    ]


def mechanisms_of(spec: KeySpec) -> frozenset[Mechanism]:
    """What a key of that spec may be used with here."""
    if spec == DATA:
        return frozenset({Mechanism.WRAP_DATA})
    return MECHANISMS.get(spec, frozenset())
