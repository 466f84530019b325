"""How a data key seals, which depends on the HSM that has it: AES-GCM, a YubiHSM's own authenticated wrap, or AES-CBC
and HMAC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy.envelope import AES_256_CBC_HMAC, AES_256_CCM, AES_256_GCM, HEADER, NONCE, TAG
from openk_hsm.seam import Algorithm, Mechanism


@dataclass(frozen=True, slots=True)
class Scheme:
    """`number`: the algorithm in envelopes. `nonce`: bytes of it that we draw and store before what the HSM answers.
    `longer`: by how many bytes that answer is longer than the data."""

    algorithm: Algorithm
    number: int
    mechanism: Mechanism
    nonce: int
    longer: int

    @property
    def overhead(self) -> int:
        """By how much an envelope is longer than what is in it."""
        return HEADER + self.nonce + self.longer


GCM: Final = Scheme(Algorithm.AES_256_GCM, AES_256_GCM, Mechanism.AES_GCM, NONCE, TAG)
CCM: Final = Scheme(Algorithm.AES_256_CCM, AES_256_CCM, Mechanism.WRAP_DATA, 0, 62)
CBC_HMAC: Final = Scheme(Algorithm.AES_256_CBC_HMAC, AES_256_CBC_HMAC, Mechanism.AES_CBC_HMAC, NONCE, 48)
_SCHEMES: Final = {scheme.algorithm: scheme for scheme in (GCM, CCM, CBC_HMAC)}


def scheme_of(data: Algorithm) -> Scheme:
    """For `TokenInfo.data`, or the algorithm of a data key."""
    return _SCHEMES[data]
