"""Signatures: hashed by the daemon where the algorithm wants a digest, made in the HSM or with a cached key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.keys import cached
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.manners import Manner
from openk_daemon.keys.state import KeyState, KeyVersion
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending
from openk_hsm.seam import EMPTY, OpCode, Operation

_SIGN: Final = OpCode.SIGN


class Signers:
    def __init__(self, keyring: Keyring) -> None:
        self._openings = keyring.openings
        self._submit = keyring.hierarchy.lane.submit

    async def sign(
        self, state: KeyState, version: KeyVersion, manner: Manner, inputs: Sequence[memoryview], client: int
    ) -> list[bytes | Refusal]:
        """One signature or refusal an input. ECDSA answers DER (RFC 3279 section 2.2.3)."""
        handle = version.handle
        if handle is None:
            return await self._sign_cached(state, version, manner, inputs)
        waiting: list[Pending[bytes | int] | Refusal] = []
        for data in inputs:
            try:
                message = manner.message(data)
            except Refusal as refusal:
                waiting.append(refusal)
                continue
            operation = Operation(_SIGN, manner.room, handle, manner.mechanism, message, EMPTY, EMPTY, None, client)
            waiting.append(self._submit(operation))
        signatures: list[bytes | Refusal] = []
        for element in waiting:
            if isinstance(element, Refusal):
                signatures.append(element)
                continue
            try:
                answer = await element
            except HsmError as error:
                signatures.append(refuse(error))
                continue
            if not isinstance(answer, bytes):
                signatures.append(Refusal("internal"))
            else:
                signatures.append(der(answer) if manner.ecdsa else answer)
        return signatures

    async def _sign_cached(
        self, state: KeyState, version: KeyVersion, manner: Manner, inputs: Sequence[memoryview]
    ) -> list[bytes | Refusal]:
        material = await self._openings.material(state, version, len(inputs))
        signatures: list[bytes | Refusal] = []
        for data in inputs:
            try:
                signatures.append(cached.sign(state.algorithm, material, manner, data))
            except Refusal as refusal:
                signatures.append(refusal)
        return signatures


def der(raw: bytes) -> bytes:
    """r || s, as PKCS#11 gives it -> SEQUENCE { r, s }."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
