"""How long one operation of an HSM takes, through its lane: one at a time, so that clients are served in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Final

from openk_hsm.errors import HsmError, Unsupported
from openk_hsm.pending import Pending
from openk_hsm.roots import AUDIT_KEY, ROOT_MAC
from openk_hsm.seam import (
    Algorithm,
    KeyHandle,
    KeySpec,
    Lane,
    Mechanism,
    OpCode,
    Operation,
    Purpose,
    TokenInfo,
    Wrapped,
    Wrapper,
)

Handle = Callable[[KeySpec, Wrapped], KeyHandle]
Once = Callable[[int], Coroutine[Pending[object], None, None]]
"""One operation, the n-th."""
Prepare = Callable[[], Coroutine[Pending[object], None, Once]]
"""Makes the key that it takes."""

OPERATIONS: Final = ("random", "hmac-sha-256", "aes-256-gcm", "ed25519", "p-256", "generate-p-256")
ROOM: Final = 32
"""Bytes of locked memory a measurement needs."""
_CONTEXT: Final = b"openk.bench.1\x00"
_SIGN: Final = KeySpec(Algorithm.P256, Purpose.SIGN)
_DATA: Final = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)
_PLAIN: Final = bytes(256)
_DIGEST: Final = hashlib.sha256(_CONTEXT).digest()


@dataclass(frozen=True, slots=True)
class Measured:
    """`times`: nanoseconds of each operation, in order; at least one."""

    times: Sequence[int]

    @property
    def per_second(self) -> float:
        return 1e9 * len(self.times) / max(1, sum(self.times))

    def percentile(self, share: float) -> int:
        """Nanoseconds: the least time that `share` (0 to 1) of all are not above."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Stopwatch:
    """`root`: this HSM's root wrapping keys. `room`: writable locked memory of `ROOM` bytes. `client`: whose turn the
    operations take in the lane's queue."""

    def __init__(
        self, lane: Lane, info: TokenInfo, root: Wrapper, handle: Handle, room: memoryview, client: int
    ) -> None:
        self._lane = lane
        self._info = info
        self._root = root
        self._handle = handle
        self._room = room
        self._client = client
        self._key: KeyHandle | None = None
        ways = (self._random, self._hmac, self._gcm, self._ed25519, self._p256, self._generation)
        self._prepare: Mapping[str, Prepare] = dict(zip(OPERATIONS, ways, strict=True))

    async def measure(self, operation: str, count: int, seconds: float) -> Measured:
        """At least one operation, at most `count`; none begins after `seconds`. The first use of a key (it is loaded
        then) is not measured. Raises HsmError, Unsupported where the token cannot do it; KeyError for a name that is
        none."""
        prepare = self._prepare[operation]
        try:
            once = await prepare()
            await once(0)
            times: list[int] = []
            end = monotonic() + seconds
            while len(times) < count and (not times or monotonic() < end):
                began = monotonic_ns()
                await once(len(times) + 1)
                times.append(monotonic_ns() - began)
        finally:
            if self._key is not None:
                self._lane.unload(self._key)
        return Measured(times)

    async def _random(self) -> Once:
        async def once(_: int) -> None:
            await self._submit(Operation(OpCode.RANDOM, ROOM, into=self._room[:ROOM]))

        return once

    async def _hmac(self) -> Once:
        key = self._at_root(ROOT_MAC)

        async def once(number: int) -> None:
            data = _CONTEXT + number.to_bytes(8, "big")
            await self._submit(Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, data))

        return once

    async def _ed25519(self) -> Once:
        if not self._info.audit_public or self._info.audit is not Algorithm.ED25519:
            raise Unsupported("this token's audit key is no Ed25519 key, and a measurement leaves no objects behind")
        key = self._at_root(AUDIT_KEY)

        async def once(number: int) -> None:
            data = _CONTEXT + number.to_bytes(8, "big")
            await self._submit(Operation(OpCode.SIGN, 64, key, Mechanism.EDDSA, data))

        return once

    async def _p256(self) -> Once:
        key = await self._make(_SIGN)

        async def once(_: int) -> None:
            await self._submit(Operation(OpCode.SIGN, 64, key, Mechanism.ECDSA, _DIGEST))

        return once

    async def _gcm(self) -> Once:
        key = await self._make(_DATA)

        async def once(number: int) -> None:
            nonce = number.to_bytes(12, "big")  # the key lives as long as this measurement: no nonce comes twice
            room = len(_PLAIN) + 16
            await self._submit(Operation(OpCode.ENCRYPT, room, key, Mechanism.AES_GCM, _PLAIN, param=nonce))

        return once

    async def _generation(self) -> Once:
        self._require(_SIGN)

        async def once(_: int) -> None:
            await self._lane.generate(_SIGN, self._root, _CONTEXT)

        return once

    async def _submit(self, operation: Operation) -> None:
        operation.client = self._client
        await self._lane.submit(operation)

    def _at_root(self, key: KeyHandle) -> KeyHandle:
        return KeyHandle(key.slot, key.spec, key.source, self._root.mac.hsm)

    def _require(self, spec: KeySpec) -> None:
        if spec not in self._info.wrapped:
            raise Unsupported("this token has no such wrapped keys, and a measurement leaves no objects behind")

    async def _make(self, spec: KeySpec) -> KeyHandle:
        """A key for this measurement only."""
        self._require(spec)
        made = await self._lane.generate(spec, self._root, _CONTEXT)
        if made.blob is None:
            raise HsmError("the HSM gave no wrapped key")
        self._key = self._handle(spec, Wrapped(self._root, _CONTEXT, made.blob))
        return self._key
