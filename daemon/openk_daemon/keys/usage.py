"""How often an AES-GCM key version was used: counted ahead in blocks, so that a crash can only over-count.

With random 96-bit nonces NIST SP 800-38D section 8.3 allows 2^32 uses of a key. Before the first use of a block,
the end of the block is made durable; within it counting is one subtraction. Blocks begin small and double, so that
neither a busy key commits often nor a restart costs a quiet key much of its life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy.flights import Flights
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.records import FORMAT, KEY_USAGE, KeyUsageBody, encode
from openk_daemon.hierarchy.sealing import Draft
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Unit
from openk_hsm.pending import drive

FIRST_BLOCK: Final = 1 << 10
LAST_BLOCK: Final = 1 << 20
LIMIT: Final = 1 << 32


@dataclass(slots=True, eq=False)
class Usage:
    """`left` uses of the block are free; below `low` the next block is fetched in time."""

    id: bytes
    vault: VaultKeys
    reserved: int
    revision: int
    left: int = 0
    low: int = 0
    block: int = FIRST_BLOCK

    @property
    def uses(self) -> int:
        """At least as many as there were."""
        return self.reserved - max(self.left, 0)


class Counter:
    """Reserves blocks. `limit` is the greatest number of uses of one version."""

    def __init__(self, hierarchy: Hierarchy, limit: int = LIMIT) -> None:
        self._hierarchy = hierarchy
        self.limit = limit
        self._reserving: Flights[bytes, None] = Flights()

    async def refill(self, usage: Usage, taken: int) -> None:
        """Called after `usage.left -= taken` fell below `usage.low`. Returns when `left` is not negative.
        Raises Refusal(key.exhausted) or StoreError; then what was taken is given back."""
        try:
            while usage.left < 0:
                await self._reserving.join(usage.id, lambda: self._reserve(usage, -usage.left))
        except Exception:
            usage.left += taken
            raise
        if usage.left < usage.low:
            usage.low = 0  # once a block; below 0 somebody has to wait
            drive(self._ahead(usage), lambda _value, _error: None)

    async def _ahead(self, usage: Usage) -> None:
        """Fetch the next block while this one lasts. An error now is met again when it is needed."""
        if usage.reserved < self.limit:
            await self._reserving.join(usage.id, lambda: self._reserve(usage, 1))

    async def _reserve(self, usage: Usage, needed: int) -> None:
        size = min(max(usage.block, needed), self.limit - usage.reserved)
        if size < needed:
            raise Refusal("key.exhausted", details={"limit": self.limit})
        await self._write(usage, usage.reserved + size)
        usage.left += size
        usage.block = min(usage.block * 2, LAST_BLOCK)
        usage.low = size // 4

    async def settle(self, usage: Usage) -> None:
        """At a clean stop: make the exact count durable. The usage must not be used again."""
        if usage.left > 0:
            left, usage.left = usage.left, 0
            await self._write(usage, usage.reserved - left)

    async def _write(self, usage: Usage, reserved: int) -> None:
        hierarchy = self._hierarchy
        body = encode(KeyUsageBody(FORMAT, reserved))
        draft = Draft(KEY_USAGE, usage.id, usage.revision, body)
        writes = await hierarchy.sealing.seal(usage.vault.sealer, [draft])
        await hierarchy.store.commit(Unit(tuple(writes)))
        usage.revision += 1
        usage.reserved = reserved
