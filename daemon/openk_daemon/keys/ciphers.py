"""AES-256-GCM with clients' keys: in the HSM, or with a cached key; and RSA-OAEP opened in the HSM.

Functions here take and give lists, one element an item. All HSM operations of a call are submitted before the first
is awaited; an item's error is its own element. Plaintexts are leases, which the caller releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openk_daemon.call import Sealed
from openk_daemon.hierarchy.envelope import BODY, HEADER, OVERHEAD, TAG, EnvelopeError, parse
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.keys import cached
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.manners import Oaep
from openk_daemon.keys.state import KeyState, KeyVersion
from openk_daemon.keys.suites import RSA_BYTES
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending
from openk_hsm.seam import EMPTY, Buffer, Mechanism, OpCode, Operation
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool

Input = tuple[memoryview, Buffer]
"""Data and the caller's AAD."""
Plaintext = tuple[Sealed, int]
"""A plaintext and the key version that opened it."""
_Waiting = tuple[Lease, int, int, Pending[bytes | int]]
"""Where the plaintext arrives, its length, the key version, the answer."""

_ENCRYPT: Final = OpCode.ENCRYPT
_DECRYPT: Final = OpCode.DECRYPT
_GCM: Final = Mechanism.AES_GCM


class Ciphers:
    def __init__(self, keyring: Keyring, pool: Pool) -> None:
        self._keyring = keyring
        self._openings = keyring.openings
        self._counter = keyring.counter
        self._pool = pool
        self._submit = keyring.hierarchy.lane.submit
        self._nonce = keyring.hierarchy.nonces.take

    async def seal(
        self, state: KeyState, version: KeyVersion, inputs: Sequence[Input], client: int
    ) -> list[bytes | Refusal]:
        """Ciphertexts in openk's layout. Counts the uses first: raises Refusal(key.exhausted)."""
        usage = version.usage
        if usage is not None:
            usage.left -= len(inputs)
            if usage.left < usage.low:
                await self._counter.refill(usage, len(inputs))
        handle = version.handle
        if handle is None:
            material = self._openings.ready(version, len(inputs))
            if material is None:
                material = await self._openings.material(state, version, len(inputs))
            return self._seal_cached(version, material, inputs)
        header = version.header
        waiting: list[tuple[bytes, Pending[bytes | int]]] = []
        for data, aad in inputs:
            nonce = self._nonce()
            operation = Operation(_ENCRYPT, len(data) + TAG, handle, _GCM, data, header + aad, nonce, None, client)
            waiting.append((header + nonce, self._submit(operation)))
        sealed: list[bytes | Refusal] = []
        for prefix, pending in waiting:
            try:
                answer = await pending
            except HsmError as error:
                sealed.append(refuse(error))
            else:
                sealed.append(prefix + answer if isinstance(answer, bytes) else Refusal("internal"))
        return sealed

    def _seal_cached(self, version: KeyVersion, material: memoryview, inputs: Sequence[Input]) -> list[bytes | Refusal]:
        cipher = AESGCM(material)  # freed when this returns: a live one keeps raw copies of the key
        encrypt = cipher.encrypt
        take = self._nonce
        header = version.header
        sealed: list[bytes | Refusal] = []
        for data, aad in inputs:
            nonce = take()
            sealed.append(b"".join((header, nonce, encrypt(nonce, data, header + aad))))
        return sealed

    async def open(
        self, state: KeyState, inputs: Sequence[Input], client: int, owner: int
    ) -> list[Plaintext | Refusal]:
        """Each ciphertext says which version opens it."""
        newest = state.newest
        if newest.handle is None and all(self._named(state, sealed) for sealed, _ in inputs):
            material = self._openings.ready(newest, len(inputs))
            if material is None:
                material = await self._openings.material(state, newest, len(inputs))
            return self._open_all_cached(newest, material, inputs, owner)
        waiting: list[Plaintext | Refusal | _Waiting] = []
        for sealed, aad in inputs:
            try:
                version = self._named(state, sealed) or await self._find(state, sealed)
                length = len(sealed) - OVERHEAD
                handle = version.handle
                if handle is None:
                    material = self._openings.ready(version, 1)
                    if material is None:
                        material = await self._openings.material(state, version)
                    waiting.append(self._open_cached(version, material, sealed, aad, owner))
                    continue
                lease = self._pool.lease(length, owner)
            except Refusal as refusal:
                waiting.append(refusal)
                continue
            except (HsmError, Exhausted) as error:
                waiting.append(refuse(error))
                continue
            operation = Operation(
                _DECRYPT,
                length + TAG,  # tokens want room for the ciphertext's length
                handle,
                _GCM,
                sealed[BODY:],
                version.header + aad,
                sealed[HEADER:BODY],
                lease.view,
                client,
            )
            waiting.append((lease, length, version.number, self._submit(operation)))
        return await _gather(waiting)

    def _named(self, state: KeyState, sealed: memoryview) -> KeyVersion | None:
        """The newest version, when the ciphertext is of it: the usual case, told by one comparison."""
        newest = state.newest
        return newest if len(sealed) >= OVERHEAD and bytes(sealed[:HEADER]) == newest.header else None

    async def _find(self, state: KeyState, sealed: memoryview) -> KeyVersion:
        try:
            header = parse(sealed)
        except EnvelopeError as error:
            raise Refusal("key.ciphertext_invalid", f"not a ciphertext of openk: {error}") from error
        if header.key != state.id:
            raise Refusal("key.ciphertext_invalid", f"made with another key than {state.name}")
        version = await self._keyring.version(state, header.version)
        if bytes(sealed[:HEADER]) != version.header:
            raise Refusal(
                "key.ciphertext_invalid", "of another kind: use key.unwrap for wrapped keys, key.decrypt else"
            )
        return version

    def _open_all_cached(
        self, version: KeyVersion, material: memoryview, inputs: Sequence[Input], owner: int
    ) -> list[Plaintext | Refusal]:
        """The usual case for cached keys: one cipher object, freed when this returns."""
        decrypt_into = AESGCM(material).decrypt_into
        lease_of = self._pool.lease
        header, number = version.header, version.number
        opened: list[Plaintext | Refusal] = []
        for sealed, aad in inputs:
            length = len(sealed) - OVERHEAD
            try:
                lease = lease_of(length, owner)
            except Exhausted as error:
                opened.append(refuse(error))
                continue
            try:
                decrypt_into(sealed[HEADER:BODY], sealed[BODY:], header + aad, lease.view)
            except InvalidTag:
                lease.release()
                opened.append(Refusal("key.ciphertext_invalid"))
            else:
                opened.append((Sealed(lease, length), number))
        return opened

    def _open_cached(
        self, version: KeyVersion, material: memoryview, sealed: memoryview, aad: Buffer, owner: int
    ) -> Plaintext:
        length = len(sealed) - OVERHEAD
        lease = self._pool.lease(length, owner)
        try:
            cached.decrypt(material, sealed[HEADER:BODY], sealed[BODY:], version.header + aad, lease.view)
        except BaseException:
            lease.release()
            raise
        return Sealed(lease, length), version.number

    async def open_oaep(
        self,
        state: KeyState,
        version: KeyVersion,
        manner: Oaep,
        inputs: Sequence[Input],
        client: int,
        owner: int,
    ) -> list[Plaintext | Refusal]:
        size = RSA_BYTES[state.algorithm]
        waiting: list[Plaintext | Refusal | _Waiting] = []
        for sealed, aad in inputs:
            if len(aad):
                waiting.append(Refusal("key.input_invalid", "RSA-OAEP takes no AAD"))
                continue
            if len(sealed) != size:
                waiting.append(Refusal("key.ciphertext_invalid", f"an OAEP block of this key has {size} bytes"))
                continue
            try:
                # Room for a whole block, though less is needed: tokens unpad in the caller's buffer.
                lease = self._pool.lease(size, owner)
            except Exhausted as error:
                waiting.append(refuse(error))
                continue
            operation = Operation(
                _DECRYPT,
                size,
                version.handle,
                manner.mechanism,
                sealed,
                EMPTY,
                EMPTY,
                lease.view,
                client,
            )
            waiting.append((lease, -1, version.number, self._submit(operation)))
        return await _gather(waiting)


async def _gather(waiting: Sequence[Plaintext | Refusal | _Waiting]) -> list[Plaintext | Refusal]:
    """Wait for every answer, errors included: until then the HSM may write into the leases."""
    opened: list[Plaintext | Refusal] = []
    for element in waiting:
        if isinstance(element, Refusal) or len(element) != 4:
            opened.append(element)
            continue
        lease, length, number, pending = element
        try:
            answer = await pending
        except HsmError as error:
            lease.release()
            opened.append(refuse(error))
            continue
        if not isinstance(answer, int) or (length >= 0 and answer != length):
            lease.release()
            opened.append(Refusal("internal"))
        else:
            opened.append((Sealed(lease, answer), number))
    return opened
