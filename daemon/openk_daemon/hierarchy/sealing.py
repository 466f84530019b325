"""Records and key material, sealed and opened by the HSM. Every one is bound to where it belongs.

All operations of one call are submitted before the first is awaited: ten records cost one trip to the HSM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openk_daemon.hierarchy import canonical
from openk_daemon.hierarchy.envelope import BODY, HEADER, OVERHEAD, TAG
from openk_daemon.hierarchy.nonces import Nonces
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.vault_keys import Sealer
from openk_daemon.store.seam import Record, Write
from openk_hsm.errors import HsmError, InvalidCiphertext
from openk_hsm.pending import Pending
from openk_hsm.seam import Buffer, Lane, Mechanism, OpCode, Operation


@dataclass(frozen=True, slots=True)
class Draft:
    """A write whose body is not sealed yet."""

    kind: str
    id: bytes
    expected: int
    plain: bytes


class Sealing:
    """Stateless beside the lane and the nonces."""

    def __init__(self, lane: Lane, nonces: Nonces) -> None:
        self._lane = lane
        self._nonces = nonces

    async def seal(self, sealer: Sealer, drafts: Sequence[Draft]) -> list[Write]:
        """Raises HsmError."""
        waiting = [
            self._encrypt(sealer, sealer.record, record_context(draft.kind, draft.id, draft.expected + 1), draft.plain)
            for draft in drafts
        ]
        bodies = [prefix + _whole(await pending) for prefix, pending in waiting]
        return [Write(d.kind, d.id, d.expected, body) for d, body in zip(drafts, bodies, strict=True)]

    async def open(self, sealer: Sealer, records: Sequence[Record]) -> list[bytes]:
        """Plaintexts in order. Raises Refusal(store.damaged) when one is not what was written there."""
        waiting = [self._submit_open(sealer, record) for record in records]
        return [await _opened(record.kind, pending) for record, pending in zip(records, waiting, strict=True)]

    async def seal_material(self, sealer: Sealer, context: bytes, material: memoryview) -> bytes:
        """Key bytes in locked memory -> envelope. `context` comes from `material_context`."""
        prefix, pending = self._encrypt(sealer, sealer.material, context, material)
        return prefix + _whole(await pending)

    def open_material(
        self, sealer: Sealer, context: bytes, envelope: Buffer, into: memoryview
    ) -> Pending[bytes | int] | None:
        """Settles with the length, key bytes in `into`; InvalidCiphertext when it is not the one that was sealed.
        None when it is no envelope of this sealer at all."""
        if len(envelope) < OVERHEAD or envelope[:HEADER] != sealer.material:
            return None
        return self._decrypt(sealer, context, envelope, into)

    def _encrypt(
        self, sealer: Sealer, header: bytes, context: bytes, data: Buffer
    ) -> tuple[bytes, Pending[bytes | int]]:
        nonce = self._nonces.take()
        operation = Operation(
            OpCode.ENCRYPT,
            len(data) + TAG,
            sealer.key,
            Mechanism.AES_GCM,
            data=data,
            aad=header + context,
            param=nonce,
        )
        return header + nonce, self._lane.submit(operation)

    def _decrypt(
        self, sealer: Sealer, context: bytes, envelope: Buffer, into: memoryview | None
    ) -> Pending[bytes | int]:
        return self._lane.submit(
            Operation(
                OpCode.DECRYPT,
                len(envelope) - BODY,  # tokens want room for the ciphertext's length
                sealer.key,
                Mechanism.AES_GCM,
                data=envelope[BODY:],
                aad=bytes(envelope[:HEADER]) + context,
                param=envelope[HEADER:BODY],
                into=into,
            )
        )

    def _submit_open(self, sealer: Sealer, record: Record) -> Pending[bytes | int] | None:
        body = record.body
        if len(body) < OVERHEAD or body[:HEADER] != sealer.record:
            return None
        return self._decrypt(sealer, record_context(record.kind, record.id, record.version), body, None)


def record_context(kind: str, id_: bytes, version: int) -> bytes:
    return canonical.encode(canonical.RECORD, kind, id_, version)


def material_context(type_: str, vault: bytes, id_: bytes, version: int, purpose: str) -> bytes:
    return canonical.encode(canonical.MATERIAL, type_, vault, id_, version, purpose)


async def _opened(kind: str, pending: Pending[bytes | int] | None) -> bytes:
    if pending is None:
        raise damaged(kind)
    try:
        return _whole(await pending)
    except InvalidCiphertext as error:
        raise damaged(kind) from error


def _whole(answer: bytes | int) -> bytes:
    if isinstance(answer, int):
        raise HsmError("the lane answered a length where bytes were asked for")
    return answer
