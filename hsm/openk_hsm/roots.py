"""openk's own keys on every token: made by `openk-hsm init`, found by label and id at each start, in fixed slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Purpose, Resident, Wrapper

ROOT_KW: Final = KeyHandle(
    1, KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP), Resident("openk-root-kw", b"openk-root-kw")
)
ROOT_DATA: Final = KeyHandle(
    2, KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT), Resident("openk-root-data", b"openk-root-data")
)
ROOT_MAC: Final = KeyHandle(
    3, KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC), Resident("openk-root-mac", b"openk-root-mac")
)
ROOT_DATA_CCM: Final = KeyHandle(ROOT_DATA.slot, KeySpec(Algorithm.AES_256_CCM, Purpose.ENCRYPT), ROOT_DATA.source)
ROOT_DATA_CBC_HMAC: Final = KeyHandle(
    ROOT_DATA.slot, KeySpec(Algorithm.AES_256_CBC_HMAC, Purpose.ENCRYPT), ROOT_DATA.source
)
AUDIT_KEY: Final = KeyHandle(4, KeySpec(Algorithm.ED25519, Purpose.SIGN), Resident("openk-audit", b"openk-audit"))
AUDIT_KEYS: Final[Mapping[Algorithm, KeyHandle]] = {
    Algorithm.ED25519: AUDIT_KEY,
    Algorithm.P256: KeyHandle(AUDIT_KEY.slot, KeySpec(Algorithm.P256, Purpose.SIGN), AUDIT_KEY.source),
    Algorithm.RSA_3072: KeyHandle(AUDIT_KEY.slot, KeySpec(Algorithm.RSA_3072, Purpose.SIGN), AUDIT_KEY.source),
}
"""The audit key by what it is, the preferred one first (docs/adr/0013)."""
ROOT: Final = Wrapper(ROOT_KW, ROOT_MAC)
FIRST_FREE_SLOT: Final = 16
_ROOT_DATA: Final = {Algorithm.AES_256_CCM: ROOT_DATA_CCM, Algorithm.AES_256_CBC_HMAC: ROOT_DATA_CBC_HMAC}


def root_data(data: Algorithm) -> KeyHandle:
    """The root's data key on a token whose `TokenInfo.data` is that."""
    return _ROOT_DATA.get(data, ROOT_DATA)


def roots(data: Algorithm, audit: Algorithm | None) -> tuple[KeyHandle, ...]:
    """The keys that `openk-hsm init` makes on a token whose `TokenInfo.data` and `TokenInfo.audit` are these."""
    signing = () if audit is None else (AUDIT_KEYS[audit],)
    return ROOT_KW, root_data(data), ROOT_MAC, *signing


def name_of(root: KeyHandle) -> tuple[str, bytes]:
    """Label and id of a key on the token."""
    if not isinstance(root.source, Resident):
        raise TypeError("a root key is resident")
    return root.source.label, root.source.id
