"""The three keys of one vault, as the daemon holds them: handles and names, no key bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from openk_daemon.hierarchy import canonical
from openk_daemon.hierarchy.envelope import Header, Kind
from openk_daemon.hierarchy.schemes import GCM, Scheme, scheme_of
from openk_daemon.hierarchy.shelf import Shelf
from openk_hsm.binding import spec_in
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Purpose, Resident, Wrapper

KW: Final = KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP)
DATA: Final = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)
DEVICE_DATA: Final = KeySpec(Algorithm.AES_256_CCM, Purpose.ENCRYPT)
"""The same on a YubiHSM."""
PAIRED_DATA: Final = KeySpec(Algorithm.AES_256_CBC_HMAC, Purpose.ENCRYPT)
"""The same on a token without AES-GCM."""
MAC: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)

VERSION: Final = 1
"""Version of root's and vaults' own keys in envelopes; later rotations of vault keys count on from here."""

ROOT_ID: Final = bytes(16)
"""Stands for the root key where envelopes name the key they were made with."""

_DIGESTS_KEPT: Final = 4096


def data_spec(blob: bytes) -> KeySpec:
    """What a wrapped data key is, from the blob itself: a token may seal otherwise today than when it was made."""
    return PAIRED_DATA if spec_in(blob) == PAIRED_DATA else DATA


def key_context(vault: bytes, role: str) -> bytes:
    """What is bound to a wrapped vault key: it opens as this key of this vault only."""
    return canonical.encode(canonical.KEY_OBJECT, "vault", vault, role)


@dataclass(slots=True, eq=False)
class Tally:
    """How often a data key of ours was used: `reserved` is durable, `left` uses of it are free. `revision` is the
    version of its record, 0 for none, None while it is not read yet."""

    revision: int | None = None
    reserved: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sealer:
    """Who seals records: a data key, the headers of what it makes, and the id of the record that counts its uses.
    `counted` says that there must be one: a vault's is made with the vault; root's with its first use, so before the
    first vault."""

    key: KeyHandle
    record: bytes
    material: bytes
    usage: bytes
    counted: bool
    scheme: Scheme = GCM
    tally: Tally = field(default_factory=Tally)


def sealer(id_: bytes, key: KeyHandle, *, counted: bool = True) -> Sealer:
    """The key's algorithm says how it seals."""
    scheme = scheme_of(key.spec.algorithm)
    record, material = (Header(kind, id_, VERSION, scheme.number).pack() for kind in (Kind.RECORD, Kind.MATERIAL))
    return Sealer(key, record, material, usage_id(id_), counted, scheme)


def usage_id(vault: bytes) -> bytes:
    """The id of the record that counts the uses of a vault's data key; where the vault's keys are token objects, their
    id too."""
    return vault + VERSION.to_bytes(4, "big")


def object_label(role: str, id_: bytes) -> str:
    """The label of a vault's key that is a token object. `id_`: from `usage_id`."""
    return f"openk-{role}-{id_.hex()}"


@dataclass(frozen=True, slots=True, eq=False)
class VaultKeys:
    name: str
    id: bytes
    created: int
    """Milliseconds since the epoch."""
    wrapper: Wrapper
    sealer: Sealer
    hsm: str = ""
    """Which HSM has them, as records say it (openk_daemon.hsms)."""
    digests: Shelf[tuple[str, str], bytes] = field(default_factory=lambda: Shelf[tuple[str, str], bytes](_DIGESTS_KEPT))
    """(type, name) -> digest. Names are not secret in memory; in the store they are."""

    def handles(self) -> tuple[KeyHandle, ...]:
        """What is this vault's own: one whose keys are token objects wraps nothing, and has no `kw`."""
        own = (self.wrapper.mac, self.sealer.key)
        return own if isinstance(self.wrapper.mac.source, Resident) else (self.wrapper.kw, *own)
