"""One version of a secret, locked and unlocked: its data key exists in one lease, for as long as that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openk_daemon.call import Sealed
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.nonces import Nonces
from openk_daemon.hierarchy.records import SECRET_VERSION
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.sealing import material_context
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.secrets.payload import (
    REVISION,
    Contents,
    Payload,
    PayloadError,
    assemble,
    decode_contents,
    encode_contents,
    front,
    parse,
    segment_aad,
)
from openk_daemon.store.seam import Record, Write
from openk_hsm.errors import HsmError, InvalidCiphertext
from openk_hsm.seam import OpCode, Operation
from openk_memory.pool import Pool

DATA_KEY: Final = 32  # bytes
_PURPOSE: Final = "data-key"
_TYPE: Final = "secret"


@dataclass(frozen=True, slots=True, eq=False)
class Unlocked:
    """`values` belong to the caller, who releases them. `names` is None for one bare value."""

    created: int
    names: tuple[str, ...] | None
    values: tuple[Sealed, ...]


class Locker:
    def __init__(self, hierarchy: Hierarchy, pool: Pool) -> None:
        self._hierarchy = hierarchy
        self._pool = pool

    async def lock(
        self, vault: VaultKeys, id_: bytes, created: int, names: Sequence[str] | None, values: Sequence[memoryview]
    ) -> Write:
        """The version's record, not yet durable. `id_` is the secret's id and the version."""
        hierarchy = self._hierarchy
        with self._pool.lease(DATA_KEY) as lease:
            drawn = await hierarchy.lane.submit(Operation(OpCode.RANDOM, DATA_KEY, into=lease.view))
            if drawn != DATA_KEY:
                raise HsmError("the HSM gave too few random bytes")
            envelope = await hierarchy.sealing.seal_material(vault.sealer, _context(vault, id_), lease.view)
            hierarchy.touched = True
            front_ = front(envelope, len(values) + 1)
            parts = [memoryview(encode_contents(created, names)), *values]
            segments = _seal(lease.view, hierarchy.nonces, id_, front_, parts)
        return Write(SECRET_VERSION, id_, REVISION - 1, assemble(front_, segments))

    async def unlock(self, vault: VaultKeys, record: Record, owner: int) -> Unlocked:
        """Raises Refusal(store.damaged), HsmError, Exhausted."""
        values: list[Sealed] = []
        try:
            contents = await self._open(vault, record, owner, values)
        except BaseException:
            for value in values:
                value.lease.release()
            raise
        return Unlocked(contents.created, contents.names, tuple(values))

    async def created(self, vault: VaultKeys, record: Record) -> int:
        """When a version was put, without opening its values."""
        return (await self._open(vault, record, 0, None)).created

    async def _open(self, vault: VaultKeys, record: Record, owner: int, values: list[Sealed] | None) -> Contents:
        if record.version != REVISION:
            raise damaged(SECRET_VERSION)
        try:
            payload = parse(record.body)
            self._hierarchy.touched = True
            with self._pool.lease(DATA_KEY) as lease:
                pending = self._hierarchy.sealing.open_material(
                    vault.sealer, _context(vault, record.id), payload.envelope, lease.view
                )
                length = vault.sealer.scheme.overhead + DATA_KEY
                if pending is None or len(payload.envelope) != length or await pending != DATA_KEY:
                    raise damaged(SECRET_VERSION)
                return self._decrypt(lease.view, record.id, payload, owner, values)
        except (InvalidTag, InvalidCiphertext, PayloadError) as error:
            raise damaged(SECRET_VERSION) from error

    def _decrypt(
        self, key: memoryview, record: bytes, payload: Payload, owner: int, values: list[Sealed] | None
    ) -> Contents:
        """No await: the AESGCM object, which keeps copies of the key, is gone when this returns."""
        cipher = AESGCM(key)
        first = payload.segments[0]
        plain = cipher.decrypt(first.nonce, first.sealed, segment_aad(record, 0, payload.front))
        contents = decode_contents(plain, len(payload.segments))
        if values is None:
            return contents
        for index, segment in enumerate(payload.segments[1:], 1):
            length = len(segment)
            sealed = Sealed(self._pool.lease(length, owner), length)
            values.append(sealed)
            aad = segment_aad(record, index, payload.front)
            cipher.decrypt_into(segment.nonce, segment.sealed, aad, sealed.lease.view)
        return contents


def _context(vault: VaultKeys, id_: bytes) -> bytes:
    return material_context(_TYPE, vault.id, id_, REVISION, _PURPOSE)


def _seal(
    key: memoryview, nonces: Nonces, record: bytes, front_: bytes, parts: Sequence[memoryview]
) -> list[tuple[bytes, bytes]]:
    """No await, for the same reason."""
    cipher = AESGCM(key)
    segments: list[tuple[bytes, bytes]] = []
    for index, part in enumerate(parts):
        nonce = nonces.take()
        segments.append((nonce, cipher.encrypt(nonce, part, segment_aad(record, index, front_))))
    return segments
