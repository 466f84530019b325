"""A key as the daemon knows it while it is in use: handles, envelopes and counters; no key bytes but in leases."""

from __future__ import annotations

from dataclasses import dataclass, field

from openk_daemon.hierarchy.envelope import Header, Kind
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.keys.manners import Manner, signing
from openk_daemon.keys.suites import HMACS, Protection
from openk_daemon.keys.usage import Usage
from openk_daemon.keys.verifying import PublicKey
from openk_daemon.refusal import Refusal
from openk_hsm.seam import Algorithm, KeyHandle, Mechanism, Purpose
from openk_memory.lease import Lease


@dataclass(slots=True, eq=False)
class Opened:
    """A cached key's bytes in locked memory, until `expires` (monotonic seconds) or `uses` run out."""

    lease: Lease
    expires: float
    uses: int


@dataclass(slots=True, eq=False)
class KeyVersion:
    """Exactly one of `handle` (wrapped, resident) and `material` (cached; an envelope) is set."""

    number: int
    created: int
    public: bytes | None
    handle: KeyHandle | None
    material: bytes | None
    header: bytes
    """Header of the ciphertexts it makes."""
    usage: Usage | None
    """AES keys only."""
    opened: Opened | None = None
    verifier: PublicKey | None = None
    facts: tuple[tuple[str, str | int], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.facts = (("version", self.number),)


@dataclass(slots=True, eq=False)
class KeyState:
    """`record` and `revision` are id and version of the key's record in the store."""

    name: str
    vault: VaultKeys
    record: bytes
    revision: int
    id: bytes
    algorithm: Algorithm
    purpose: Purpose
    protection: Protection
    created: int
    newest: KeyVersion
    versions: dict[int, KeyVersion]
    """Those that are loaded; the newest always is."""
    attributes: tuple[tuple[str, str], ...] = field(init=False)
    """Facts for policies."""
    manner: Manner | None = field(init=False)
    """How it signs when nothing is asked for."""

    hmac: tuple[Mechanism, int] = field(init=False)
    """HMAC keys: mechanism and bytes of a MAC."""

    def __post_init__(self) -> None:
        self.hmac = HMACS.get(self.algorithm, (Mechanism.NONE, 0))
        signs = self.purpose is Purpose.SIGN
        self.manner = signing(self.algorithm, None, None, prehashed=False) if signs else None
        self.attributes = (
            ("algorithm", self.algorithm.value),
            ("purpose", self.purpose.value),
            ("protection", self.protection.value),
        )


def require(state: KeyState, *purposes: Purpose) -> None:
    """Raises Refusal(key.unsuitable): one key has one job."""
    if state.purpose not in purposes:
        raise Refusal(
            "key.unsuitable",
            f"{state.name} ({state.algorithm.value}) is for {state.purpose.value}",
            details={"purpose": state.purpose.value},
        )


def ciphertext_header(purpose: Purpose, key: bytes, version: int) -> bytes:
    """The header of what a key version makes: its purpose decides the kind."""
    return Header(Kind.WRAP if purpose is Purpose.WRAP else Kind.ENCRYPT, key, version).pack()


def version_id(key: bytes, number: int) -> bytes:
    """Id of a version's record: versions of one key are neighbours, in order."""
    return key + number.to_bytes(4, "big")
