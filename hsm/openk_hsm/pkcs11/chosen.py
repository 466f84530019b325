"""What was negotiated with a token, in words: `openk-hsm probe` and `openk hsm info` show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_hsm.binding import Wrap
from openk_hsm.pkcs11.probe import Capabilities
from openk_hsm.seam import AUDIT_KEY, Algorithm

_WAYS: Final[dict[Wrap, str]] = {
    Wrap.KWP: "AES-KWP (RFC 5649)",
    Wrap.PADDED: "AES key wrap (RFC 3394) with PKCS #7 padding",
    Wrap.CBC: "AES-CBC with PKCS #7 padding",
    Wrap.PLAIN: "AES key wrap (RFC 3394)",
}
_BOUND: Final = "bound by HMAC-SHA-256 in the token"


def describe(able: Capabilities, data: Algorithm, why: str) -> Mapping[str, str]:
    """A job to how the token does it. `why`: what kept openk from AES-GCM, if something did."""
    sealing = {
        Algorithm.AES_256_GCM: "AES-256-GCM, openk's nonces",
        Algorithm.AES_256_CBC_HMAC: "AES-256-CBC, then HMAC-SHA-256 over it and its context, two keys in the token",
    }[data]
    chosen = {"data": f"{sealing}; {why}" if why else sealing, **_wrapping(able)}
    signs = AUDIT_KEY.spec in able.resident
    chosen["audit"] = "Ed25519" if signs else "no Ed25519: the audit log cannot be signed by this token"
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
