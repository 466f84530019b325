"""What `key.*` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openk.secret import Secret


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """`created`: RFC 3339. `uses`: None where the algorithm has no limit of safe uses: they are not counted."""

    version: int
    created: str
    uses: int | None


@dataclass(frozen=True, slots=True)
class KeyDue:
    """When a key is due for rotation. `at`: RFC 3339, past where it is due already; None where only the number of its
    uses will tell. `rule`: the one of the daemon's configuration that says so. `action`: what the daemon does then,
    "rotate" or "tell"."""

    at: str | None
    rule: str
    action: str


@dataclass(frozen=True, slots=True)
class KeySummary:
    """`due`: None where no rule concerns the key."""

    key: str
    algorithm: str
    purpose: str
    protection: str
    version: int
    due: KeyDue | None = None


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """`version`: the newest. `due`: None where no rule concerns the key."""

    key: str
    algorithm: str
    purpose: str
    protection: str
    version: int
    versions: Sequence[KeyVersion]
    due: KeyDue | None = None


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
