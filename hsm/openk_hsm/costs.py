"""What operations cost, in microseconds of one processor, as measured on SoftHSM2: for batching, never for billing.

Wrong by a factor of two does no harm: batches get a little longer or shorter, queues a little less fair.
"""

from __future__ import annotations

from typing import Final

from openk_hsm.seam import Algorithm, Mechanism, OpCode, Operation

_RSA_SIGN: Final[dict[Algorithm, int]] = {
    Algorithm.RSA_2048: 600,
    Algorithm.RSA_3072: 1700,
    Algorithm.RSA_4096: 4000,
}
_EC: Final[dict[Algorithm, int]] = {
    Algorithm.P256: 45,
    Algorithm.P384: 900,
    Algorithm.P521: 300,
    Algorithm.ED25519: 180,
    Algorithm.X25519: 120,
}
_SYMMETRIC: Final = 10
_AGREE_EXTRA: Final = 60

MECHANISM_COST: Final[tuple[int, ...]] = tuple(
    600 if number >= Mechanism.RSA_PKCS1_SHA_256 and number < Mechanism.ECDH
    else 110 if number == Mechanism.ECDH
    else 180 if number == Mechanism.EDDSA
    else 45 if number == Mechanism.ECDSA
    else _SYMMETRIC
    for number in range(256)
)  # fmt: skip
"""By mechanism number alone: what a worker knows of a descriptor. For every number that a byte can hold."""


_FIRST_ASYMMETRIC: Final = Mechanism.EDDSA  # names, because looking up a member of an Enum costs 60 ns
_AGREE: Final = OpCode.AGREE
_KEY_COST: Final = {**_EC, **_RSA_SIGN}


def cost_of(operation: Operation) -> int:
    """Microseconds, at least 1."""
    key = operation.key
    if key is None:
        return 4 + (operation.room >> 10)
    if operation.mechanism < _FIRST_ASYMMETRIC:
        return _SYMMETRIC + (len(operation.data) >> 10)  # about a microsecond a KiB
    cost = _KEY_COST.get(key.spec.algorithm, 200)
    return cost + _AGREE_EXTRA if operation.code is _AGREE else cost
