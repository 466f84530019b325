"""The audit key as C2SP signed notes know it: how it is named, and how it signs. Pure.

    key         type and key in a verifier key       key id: the first 4 bytes of SHA-256 of
    ed25519     01 │ 32 bytes                        name │ 0A │ 01 │ 32 bytes
    p-256       02 │ SubjectPublicKeyInfo            SubjectPublicKeyInfo; the name is not in it
    rsa-3072    FF │ PKIX-RSA-PKCS#1v1.5 │ SPKI      name │ 0A │ FF │ PKIX-RSA-PKCS#1v1.5 │ SubjectPublicKeyInfo

The first two are C2SP's (signed-note, "Signature types"). It has none for RSA: FF says that a longer identifier
follows, and the identifier is the one that Sigstore's Rekor uses.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from openk_hsm import audit_key
from openk_hsm.audit_key import PublicKey
from openk_hsm.errors import HsmError
from openk_hsm.seam import Algorithm

KEY_ID: Final = 4  # bytes
RSA_TYPE: Final = b"\xffPKIX-RSA-PKCS#1v1.5"
_TYPE: Final = {Algorithm.ED25519: b"\x01", Algorithm.P256: b"\x02", Algorithm.RSA_3072: RSA_TYPE}
_ED25519_SPKI: Final = bytes.fromhex("302a300506032b6570032100")


class NoteKeyInvalid(Exception):
    """It is no public key that an audit log is signed with."""


@dataclass(frozen=True, slots=True, eq=False)
class NoteKey:
    """`spki`: SubjectPublicKeyInfo DER, as it came."""

    algorithm: Algorithm
    spki: bytes
    _key: PublicKey

    def key_id(self, name: str) -> bytes:
        if self.algorithm is Algorithm.P256:
            return sha256(self.spki).digest()[:KEY_ID]
        return sha256(name.encode() + b"\n" + self.encoded).digest()[:KEY_ID]

    @property
    def encoded(self) -> bytes:
        """Type and key."""
        key = self.spki[len(_ED25519_SPKI) :] if self.algorithm is Algorithm.ED25519 else self.spki
        return _TYPE[self.algorithm] + key

    def verifier_key(self, name: str) -> str:
        """As C2SP tools take it (vkey): name, key id, type and key."""
        return f"{name}+{self.key_id(name).hex()}+{b64encode(self.encoded).decode()}"

    def signature(self, answer: bytes) -> bytes:
        """As the note has it, from what the HSM answered to `openk_hsm.audit_key.signing`."""
        return audit_key.signature_of(self.algorithm, answer)

    def verifies(self, text: bytes, signature: bytes) -> bool:
        return audit_key.verifies(self._key, text, signature)


def read_note_key(public: bytes) -> NoteKey:
    """From SubjectPublicKeyInfo DER (RFC 5480, 8017, 8410). Raises NoteKeyInvalid."""
    try:
        algorithm, key = audit_key.load_public(public)
    except HsmError as error:
        raise NoteKeyInvalid(str(error)) from error
    return NoteKey(algorithm, public, key)
