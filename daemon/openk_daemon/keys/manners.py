"""How a signature or an RSA encryption is made: hash, padding, mechanism. Chosen once, looked up ever after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from openk_daemon.keys.suites import COORDINATE, CURVES, HASH_BYTES, RSA, RSA_BYTES, RSA_OAEP, RSA_SIGNING, SUITES
from openk_daemon.refusal import Refusal
from openk_hsm.seam import Algorithm, Mechanism


class Digest(Protocol):
    def digest(self) -> bytes: ...


HASHES: Final[dict[str, Callable[[memoryview], Digest]]] = {
    "sha-256": hashlib.sha256,
    "sha-384": hashlib.sha384,
    "sha-512": hashlib.sha512,
}
SIGNATURE_ROOM: Final = 64
"""Bytes of an Ed25519 signature."""


@dataclass(frozen=True, slots=True)
class Manner:
    """`hash` is None where the algorithm hashes by itself, or the input is a digest already (of `digest` bytes)."""

    mechanism: Mechanism
    room: int
    hash: Callable[[memoryview], Digest] | None = None
    digest: int = 0
    hash_name: str = ""
    padding: str = ""
    ecdsa: bool = False

    def message(self, data: memoryview) -> bytes | memoryview:
        """What the mechanism signs. Raises Refusal(key.input_invalid) for a digest of the wrong length."""
        if self.hash is not None:
            return self.hash(data).digest()
        if self.digest and len(data) != self.digest:
            raise Refusal("key.input_invalid", f"a {self.hash_name} digest has {self.digest} bytes")
        return data


@lru_cache(maxsize=512)
def signing(algorithm: Algorithm, hash_: str | None, padding: str | None, prehashed: bool) -> Manner:  # noqa: FBT001 - a cached function's arguments are all alike
    """Raises Refusal(key.input_invalid) for a choice the algorithm does not leave."""
    if algorithm in RSA:
        name = hash_ or SUITES[algorithm].hash
        padding = padding or "pss"
        mechanism = RSA_SIGNING.get((padding, name))
        room = RSA_BYTES[algorithm]
    elif algorithm in CURVES:
        name = hash_ or SUITES[algorithm].hash
        mechanism = Mechanism.ECDSA if padding is None and name in HASHES else None
        room = 2 * COORDINATE[algorithm]
    else:
        name = ""
        mechanism = Mechanism.EDDSA if hash_ is None and padding is None and not prehashed else None
        room = SIGNATURE_ROOM
    if mechanism is None:
        raise Refusal("key.input_invalid", f"{algorithm.value} does not sign with this hash, padding or digest")
    function = None if prehashed else HASHES.get(name)
    digest = HASH_BYTES[name] if prehashed else 0
    return Manner(mechanism, room, function, digest, name, padding or "", algorithm in CURVES)


@dataclass(frozen=True, slots=True)
class Oaep:
    mechanism: Mechanism
    hash_name: str
    most: int
    """Longest plaintext, in bytes (RFC 8017 section 7.1.1)."""


@lru_cache(maxsize=64)
def oaep(algorithm: Algorithm, hash_: str | None) -> Oaep:
    """For RSA keys only. SHA-1 is offered because OAEP does not need collision resistance and old devices lack more."""
    name = hash_ or SUITES[algorithm].hash
    return Oaep(RSA_OAEP[name], name, RSA_BYTES[algorithm] - 2 * HASH_BYTES[name] - 2)
