"""What each algorithm can do, as data: purposes, hashes, sizes of cached material (docs/formats.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from openk_hsm.seam import Algorithm, Mechanism, Purpose


class Protection(StrEnum):
    """Where a key lives."""

    WRAPPED = "wrapped"  # enters the HSM for use, never leaves it
    RESIDENT = "resident"  # a token object
    CACHED = "cached"  # made from the HSM's random bytes, used in the daemon's locked memory for a bounded time


@dataclass(frozen=True, slots=True)
class Suite:
    """`purposes`: the first is the usual one. `material`: bytes of a cached key, 0 where there is no such.
    `only_cached`: no device openk knows has it, so `cached` is chosen where nothing is asked for."""

    purposes: tuple[Purpose, ...]
    material: int = 0
    only_cached: bool = False
    hash: str = ""
    """The usual hash."""


_AES: Final = (Purpose.ENCRYPT, Purpose.WRAP)
_HMAC: Final = (Purpose.MAC, Purpose.DERIVE)
_CURVE: Final = (Purpose.SIGN, Purpose.AGREE)
_RSA: Final = (Purpose.SIGN, Purpose.DECRYPT)

SUITES: Final[dict[Algorithm, Suite]] = {
    Algorithm.AES_256_GCM: Suite(_AES, 32),
    Algorithm.HMAC_SHA_256: Suite(_HMAC, 32, hash="sha-256"),
    Algorithm.HMAC_SHA_384: Suite(_HMAC, 48, hash="sha-384"),
    Algorithm.HMAC_SHA_512: Suite(_HMAC, 64, hash="sha-512"),
    Algorithm.ED25519: Suite((Purpose.SIGN,), 32),
    Algorithm.P256: Suite(_CURVE, 32, hash="sha-256"),
    Algorithm.P384: Suite(_CURVE, 48, hash="sha-384"),
    Algorithm.P521: Suite(_CURVE, 66, hash="sha-512"),
    Algorithm.RSA_2048: Suite(_RSA, hash="sha-256"),
    Algorithm.RSA_3072: Suite(_RSA, hash="sha-256"),
    Algorithm.RSA_4096: Suite(_RSA, hash="sha-256"),
    Algorithm.X25519: Suite((Purpose.AGREE,), 32, only_cached=True),
    Algorithm.ML_DSA_44: Suite((Purpose.SIGN,), 32, only_cached=True),
    Algorithm.ML_DSA_65: Suite((Purpose.SIGN,), 32, only_cached=True),
    Algorithm.ML_DSA_87: Suite((Purpose.SIGN,), 32, only_cached=True),
    # ML-KEM-512 is missing from the library the daemon computes with, and no device openk knows has it.
    Algorithm.ML_KEM_512: Suite((Purpose.ENCAPSULATE,), 0, only_cached=True),
    Algorithm.ML_KEM_768: Suite((Purpose.ENCAPSULATE,), 64, only_cached=True),
    Algorithm.ML_KEM_1024: Suite((Purpose.ENCAPSULATE,), 64, only_cached=True),
}

RSA: Final = frozenset({Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096})
CURVES: Final = frozenset({Algorithm.P256, Algorithm.P384, Algorithm.P521})
ML_DSA: Final = frozenset({Algorithm.ML_DSA_44, Algorithm.ML_DSA_65, Algorithm.ML_DSA_87})
ML_KEM: Final = frozenset({Algorithm.ML_KEM_768, Algorithm.ML_KEM_1024})
RSA_BYTES: Final = {Algorithm.RSA_2048: 256, Algorithm.RSA_3072: 384, Algorithm.RSA_4096: 512}
COORDINATE: Final = {Algorithm.P256: 32, Algorithm.P384: 48, Algorithm.P521: 66, Algorithm.X25519: 32}
"""Bytes of a coordinate, which is also the length of a shared secret."""

HASH_BYTES: Final = {"sha-1": 20, "sha-256": 32, "sha-384": 48, "sha-512": 64}

HMACS: Final = {
    Algorithm.HMAC_SHA_256: (Mechanism.HMAC_SHA_256, 32),
    Algorithm.HMAC_SHA_384: (Mechanism.HMAC_SHA_384, 48),
    Algorithm.HMAC_SHA_512: (Mechanism.HMAC_SHA_512, 64),
}
"""Algorithm -> mechanism, bytes of a MAC."""

RSA_SIGNING: Final = {
    ("pss", "sha-256"): Mechanism.RSA_PSS_SHA_256,
    ("pss", "sha-384"): Mechanism.RSA_PSS_SHA_384,
    ("pss", "sha-512"): Mechanism.RSA_PSS_SHA_512,
    ("pkcs1v15", "sha-256"): Mechanism.RSA_PKCS1_SHA_256,
    ("pkcs1v15", "sha-384"): Mechanism.RSA_PKCS1_SHA_384,
    ("pkcs1v15", "sha-512"): Mechanism.RSA_PKCS1_SHA_512,
}
RSA_OAEP: Final = {
    "sha-1": Mechanism.RSA_OAEP_SHA_1,
    "sha-256": Mechanism.RSA_OAEP_SHA_256,
    "sha-384": Mechanism.RSA_OAEP_SHA_384,
    "sha-512": Mechanism.RSA_OAEP_SHA_512,
}
