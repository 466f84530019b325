"""Records and key material, sealed and opened by the HSM. Every one is bound to where it belongs.

All operations of one call are submitted before the first is awaited: ten records cost one trip to the HSM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy import canonical
from openk_daemon.hierarchy.envelope import HEADER
from openk_daemon.hierarchy.flights import Flights
from openk_daemon.hierarchy.nonces import Nonces
from openk_daemon.hierarchy.records import FORMAT, KEY_USAGE, VAULT, KeyUsageBody, decode, encode
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.vault_keys import Sealer
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Record, Store, Unit, Write
from openk_hsm.errors import HsmError, InvalidCiphertext
from openk_hsm.pending import Pending
from openk_hsm.seam import EMPTY, Buffer, Lane, OpCode, Operation


@dataclass(frozen=True, slots=True)
class Draft:
    """A write whose body is not sealed yet."""

    kind: str
    id: bytes
    expected: int
    plain: bytes


BLOCK: Final = 4096
"""Uses of a data key that are made durable ahead; a restart costs at most so many of its 2^32."""
LIMIT: Final = 1 << 32
"""NIST SP 800-38D section 8.3, for random 96-bit nonces."""


class Sealing:
    """Counts the uses of the data keys it seals with, ahead: a crash can only over-count."""

    def __init__(self, lane: Lane, nonces: Nonces, store: Store, limit: int = LIMIT) -> None:
        self._lane = lane
        self._nonces = nonces
        self._store = store
        self._limit = limit
        self._reserving: Flights[bytes, None] = Flights()

    async def seal(self, sealer: Sealer, drafts: Sequence[Draft]) -> list[Write]:
        """Raises HsmError, StoreError; Refusal(key.exhausted) at the end of the data key's safe uses."""
        await self._count(sealer, len(drafts))
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
        await self._count(sealer, 1)
        prefix, pending = self._encrypt(sealer, sealer.material, context, material)
        return prefix + _whole(await pending)

    async def first_usage(self, sealer: Sealer) -> Write:
        """The record that counts the uses of a fresh data key. The sealer may be used once it is durable."""
        sealer.tally.reserved, sealer.tally.left, sealer.tally.revision = BLOCK, BLOCK - 1, 1
        return await self._usage_record(sealer, 0, BLOCK)

    async def _count(self, sealer: Sealer, uses: int) -> None:
        """Returns when so many uses are durable. Then they may happen; a crash can only over-count."""
        tally = sealer.tally
        tally.left -= uses
        try:
            while tally.left < 0:
                await self._reserving.join(sealer.usage, lambda: self._reserve(sealer))
        except Exception:
            tally.left += uses
            raise

    async def _reserve(self, sealer: Sealer) -> None:
        tally = sealer.tally
        if tally.revision is None:
            await self._read_tally(sealer)
        revision = tally.revision or 0
        needed = 1 - tally.left  # sealing the record is a use too
        size = min(max(BLOCK, needed), self._limit - tally.reserved)
        if size < needed:
            raise Refusal("key.exhausted", "the data key that seals records here", details={"limit": self._limit})
        try:
            write = await self._usage_record(sealer, revision, tally.reserved + size)
            await self._store.commit(Unit((write,)))
        except Exception:
            tally.revision = None  # what the store has is read again
            raise
        tally.revision = revision + 1
        tally.reserved += size
        tally.left += size - 1

    async def _usage_record(self, sealer: Sealer, revision: int, reserved: int) -> Write:
        context = record_context(KEY_USAGE, sealer.usage, revision + 1)
        prefix, pending = self._encrypt(sealer, sealer.record, context, encode(KeyUsageBody(FORMAT, reserved)))
        return Write(KEY_USAGE, sealer.usage, revision, prefix + _whole(await pending))

    async def _read_tally(self, sealer: Sealer) -> None:
        record = await self._store.read(KEY_USAGE, sealer.usage)
        tally = sealer.tally
        if record is not None:
            (plain,) = await self.open(sealer, [record])
            tally.revision, tally.reserved = record.version, decode(KeyUsageBody, plain).reserved
        elif sealer.counted or await self._store.query(VAULT, limit=1):
            raise damaged(KEY_USAGE)  # removing the count must not start it anew
        else:
            tally.revision, tally.reserved = 0, 0

    def open_material(
        self, sealer: Sealer, context: bytes, envelope: Buffer, into: memoryview
    ) -> Pending[bytes | int] | None:
        """Settles with the length, key bytes in `into`; InvalidCiphertext when it is not the one that was sealed.
        None when it is no envelope of this sealer at all."""
        if len(envelope) < sealer.scheme.overhead or envelope[:HEADER] != sealer.material:
            return None
        return self._decrypt(sealer, context, envelope, into)

    def _encrypt(
        self, sealer: Sealer, header: bytes, context: bytes, data: Buffer
    ) -> tuple[bytes, Pending[bytes | int]]:
        scheme = sealer.scheme
        nonce = self._nonces.take() if scheme.nonce else EMPTY
        operation = Operation(
            OpCode.ENCRYPT,
            len(data) + scheme.longer,
            sealer.key,
            scheme.mechanism,
            data=data,
            aad=header + context,
            param=nonce,
        )
        return header + nonce, self._lane.submit(operation)

    def _decrypt(
        self, sealer: Sealer, context: bytes, envelope: Buffer, into: memoryview | None
    ) -> Pending[bytes | int]:
        scheme = sealer.scheme
        body = HEADER + scheme.nonce
        return self._lane.submit(
            Operation(
                OpCode.DECRYPT,
                len(envelope) - body,  # tokens want room for the ciphertext's length
                sealer.key,
                scheme.mechanism,
                data=envelope[body:],
                aad=bytes(envelope[:HEADER]) + context,
                param=envelope[HEADER:body],
                into=into,
            )
        )

    def _submit_open(self, sealer: Sealer, record: Record) -> Pending[bytes | int] | None:
        body = record.body
        if len(body) < sealer.scheme.overhead or body[:HEADER] != sealer.record:
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
