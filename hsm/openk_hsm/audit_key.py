"""What each kind of audit key (`roots.AUDIT_KEYS`) is asked, and what its answers are to others.

ed25519    RFC 8032 over the message                                     64 bytes
p-256      ECDSA over the message's SHA-256                              r || s from the HSM, DER (RFC 3279) outside
rsa-3072   RSASSA-PKCS1-v1_5 (RFC 8017) over the message's SHA-256       384 bytes
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from openk_hsm.errors import HsmError
from openk_hsm.roots import AUDIT_KEYS
from openk_hsm.seam import Algorithm, KeyHandle, Mechanism, OpCode, Operation
from openk_hsm.specs import RSA_BITS

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_MECHANISM: Final = {
    Algorithm.ED25519: Mechanism.EDDSA,
    Algorithm.P256: Mechanism.ECDSA,
    Algorithm.RSA_3072: Mechanism.RSA_PKCS1_SHA_256,
}
_ROOM: Final = {Algorithm.ED25519: 64, Algorithm.P256: 64, Algorithm.RSA_3072: RSA_BITS[Algorithm.RSA_3072] // 8}


def signing(audit: Algorithm, message: bytes, hsm: str = "") -> Operation:
    """Have the audit key, which is that, sign `message`. `hsm`: as in `KeyHandle`."""
    known = AUDIT_KEYS[audit]
    key = KeyHandle(known.slot, known.spec, known.source, hsm) if hsm else known
    data = message if audit is Algorithm.ED25519 else sha256(message).digest()
    return Operation(OpCode.SIGN, _ROOM[audit], key, _MECHANISM[audit], data)


def load_public(public: bytes) -> tuple[Algorithm, PublicKey]:
    """An audit key from SubjectPublicKeyInfo DER. Raises HsmError where it is none of `AUDIT_KEYS`."""
    try:
        key = load_der_public_key(public)
    except ValueError as error:
        raise HsmError("the audit key's public key cannot be read") from error
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Algorithm.ED25519, key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return Algorithm.P256, key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == RSA_BITS[Algorithm.RSA_3072]:
        return Algorithm.RSA_3072, key
    raise HsmError(f"the audit key is none of {', '.join(AUDIT_KEYS)}")


def signature_of(audit: Algorithm, answer: bytes) -> bytes:
    """What the HSM answered to `signing`, as others take it. Any bytes go in; `verifies` tells what they are worth."""
    if audit is not Algorithm.P256:
        return answer
    half = len(answer) // 2
    return encode_dss_signature(int.from_bytes(answer[:half], "big"), int.from_bytes(answer[half:], "big"))


def verifies(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature`, as `signature_of` gives it, is by that key over that message."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(SHA256()))
        else:
            key.verify(signature, message, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
