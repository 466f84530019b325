"""What the typed methods return. Frozen; secrets in them are Secret and can be wiped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openk.answers import Answer
from openk.secret import Secret


@dataclass(frozen=True, slots=True)
class Hello:
    """`caller`: who the kernel says this process is. `limits`: message_bytes, in_flight."""

    version: str
    caller: Answer
    limits: Answer


@dataclass(frozen=True, slots=True)
class Health:
    """`status`: ok, degraded or failed."""

    status: str
    components: Answer


@dataclass(frozen=True, slots=True)
class Vault:
    """`created`: RFC 3339."""

    vault: str
    created: str


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """`created`: RFC 3339. `uses`: None where the algorithm has no limit of safe uses: they are not counted."""

    version: int
    created: str
    uses: int | None


@dataclass(frozen=True, slots=True)
class KeySummary:
    key: str
    algorithm: str
    purpose: str
    protection: str
    version: int


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """`version`: the newest."""

    key: str
    algorithm: str
    purpose: str
    protection: str
    version: int
    versions: Sequence[KeyVersion]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`public`: SubjectPublicKeyInfo, DER; `pem`: the same as PEM."""

    algorithm: str
    public: bytes
    pem: str
    version: int


@dataclass(frozen=True, slots=True)
class Ciphertext:
    ciphertext: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Plaintext:
    plaintext: Secret
    version: int


@dataclass(frozen=True, slots=True)
class Signature:
    signature: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Mac:
    mac: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Verified:
    """It is valid: one that is not is an error (key.signature_invalid, key.mac_invalid), never False."""

    version: int


@dataclass(frozen=True, slots=True)
class Derived:
    derived: Secret
    version: int


@dataclass(frozen=True, slots=True)
class Wrapped:
    wrapped: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Unwrapped:
    output: Secret
    version: int


@dataclass(frozen=True, slots=True)
class DataKey:
    """`plaintext`: None where only the wrapped form was asked for."""

    wrapped: bytes
    plaintext: Secret | None
    version: int


@dataclass(frozen=True, slots=True)
class Shared:
    shared: Secret
    version: int


@dataclass(frozen=True, slots=True)
class Encapsulated:
    ciphertext: bytes
    shared: Secret
    version: int


@dataclass(frozen=True, slots=True)
class SecretVersion:
    secret: str
    version: int


@dataclass(frozen=True, slots=True)
class SecretValue:
    """`value` or `fields`, as it was put. `created`: RFC 3339."""

    value: Secret | None
    fields: dict[str, Secret] | None
    version: int
    created: str


@dataclass(frozen=True, slots=True)
class SecretSummary:
    secret: str
    version: int
    created: str


@dataclass(frozen=True, slots=True)
class SecretDeleted:
    """`deleted`: how many versions."""

    secret: str
    deleted: int


@dataclass(frozen=True, slots=True)
class PolicyExplanation:
    allowed: bool
    policies: Sequence[str]
    errors: Sequence[str]
    flips: Sequence[str]
    facts: Answer


@dataclass(frozen=True, slots=True)
class PolicyEpoch:
    epoch: int
    policies: int


@dataclass(frozen=True, slots=True)
class AuditHead:
    """`checkpoint`: a C2SP tlog-checkpoint; `public`: the audit key, SubjectPublicKeyInfo DER."""

    checkpoint: str
    signed_size: int
    size: int
    public: bytes


@dataclass(frozen=True, slots=True)
class AuditProof:
    """`hashes`: lower-case hex."""

    index: int
    size: int
    hashes: Sequence[str]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`entry`: JSON text."""

    index: int
    entry: str
