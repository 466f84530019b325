"""random.bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_daemon.call import Call, Handler, Outcome, Sealed
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.seam import Lane, OpCode, Operation
from openk_memory.pool import Pool

USUAL: Final = 32
MOST: Final = 4096


class RandomHandlers:
    def __init__(self, lane: Lane, pool: Pool) -> None:
        self._lane = lane
        self._pool = pool

    def handlers(self) -> Mapping[str, Handler]:
        return {"random.bytes": refusing(self.draw)}

    async def draw(self, call: Call) -> Outcome:
        """The HSM's random bytes, straight into locked memory."""
        length = call.arguments.integer("length", USUAL)
        if not 1 <= length <= MOST:
            raise Refusal("request.invalid", f"length is 1 to {MOST}")
        lease = self._pool.lease(length, call.peer.owner)
        try:
            operation = Operation(OpCode.RANDOM, length, into=lease.view, client=call.peer.connection)
            if await self._lane.submit(operation) != length:
                raise HsmError("the HSM gave too few random bytes")
        except BaseException:
            lease.release()
            raise
        return Outcome(({"bytes": Sealed(lease, length)},), facts=(("length", length),))
