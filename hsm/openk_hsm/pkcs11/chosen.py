"""What was negotiated with a token, in words: `openk-hsm probe` and `openk hsm info` show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_hsm.binding import Wrap
from openk_hsm.pkcs11.probe import Capabilities
from openk_hsm.roots import AUDIT_KEYS
from openk_hsm.seam import Algorithm

_WAYS: Final[dict[Wrap, str]] = {
    Wrap.KWP: "AES-KWP (RFC 5649)",
    Wrap.PADDED: "AES key wrap (RFC 3394) with PKCS #7 padding",
    Wrap.CBC: "AES-CBC with PKCS #7 padding",
    Wrap.PLAIN: "AES key wrap (RFC 3394)",
}
_BOUND: Final = "bound by HMAC-SHA-256 in the token"


_AUDIT: Final[dict[Algorithm | None, str]] = {
    Algorithm.ED25519: "Ed25519",
    Algorithm.P256: "ECDSA with P-256 and SHA-256",
    Algorithm.RSA_3072: "RSA-3072, PKCS #1 v1.5 with SHA-256",
    None: "the audit log cannot be signed by this token",
}


def describe(able: Capabilities, data: Algorithm, why: str, audit: Algorithm | None) -> Mapping[str, str]:
    """A job to how the token does it. `why`: what kept openk from AES-GCM, if something did. `audit`: the audit key."""
    sealing = {
        Algorithm.AES_256_GCM: "AES-256-GCM, openk's nonces",
        Algorithm.AES_256_CBC_HMAC: "AES-256-CBC, then HMAC-SHA-256 over it and its context, two keys in the token",
    }[data]
    chosen = {"data": f"{sealing}; {why}" if why else sealing, **_wrapping(able)}
    chosen["audit"] = _AUDIT[audit]
    lacks = [str(each) for each, key in AUDIT_KEYS.items() if key.spec not in able.resident]
    if lacks and audit != Algorithm.ED25519:
        chosen["audit"] += f"; the token has no {' and no '.join(lacks)}"
    return chosen


def _wrapping(able: Capabilities) -> dict[str, str]:
    ways = sorted(set(able.way_of.values()))
    if not ways:
        return {"key objects": "none wraps so that it comes back sensitive, not extractable and for its use only"}
    if len(ways) == 1:
        return {"key objects": f"{_WAYS[ways[0]]}, {_BOUND}"}
    return {
        f"key objects: {', '.join(sorted(a for a, w in able.way_of.items() if w is way))}": f"{_WAYS[way]}, {_BOUND}"
        for way in ways
    }
