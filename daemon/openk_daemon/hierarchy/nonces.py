"""96-bit nonces for AES-GCM: random ones (NIST SP 800-38D section 8.2.2), drawn ahead from the HSM.

With random nonces one key is safe for 2^32 uses (section 8.3); openk_daemon.keys.usage counts them.  Nonces are
public, so they are ordinary bytes.  Where the HSM does not answer, the kernel's generator (getrandom) takes its
place, so that cached keys work through an outage: what counts is that no nonce comes twice, and both are random
bit generators of full strength.
"""

from __future__ import annotations

import os
from typing import Final

from openk_daemon.hierarchy.envelope import NONCE
from openk_hsm.errors import HsmError
from openk_hsm.pending import drive
from openk_hsm.seam import Lane, OpCode, Operation

_BLOCK: Final = 256 * NONCE  # bytes asked of the HSM at once: small beside the hand-off region


class Nonces:
    """`take` never waits: it uses up one block while the next is on its way."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._block = b""
        self._at = 0
        self._next: bytes | None = None
        self._asked = False

    def take(self) -> bytes:
        """12 bytes that were not given out before."""
        at = self._at
        end = at + NONCE
        if end > len(self._block):
            return self._turn()
        self._at = end
        return self._block[at:end]

    def _turn(self) -> bytes:
        """Begin the next block, or fall back to the kernel for this one nonce, and ask for more."""
        fresh = self._next
        self._next = None
        if not self._asked:
            self._asked = True
            drive(self._fetch(), self._done)
        if fresh is None:
            return os.urandom(NONCE)
        self._block = fresh
        self._at = NONCE
        return fresh[:NONCE]

    async def _fetch(self) -> None:
        try:
            block = await self._lane.submit(Operation(OpCode.RANDOM, _BLOCK))
        except HsmError:
            return  # the lane reports its own state; the next turn asks again
        if isinstance(block, bytes) and len(block) == _BLOCK:
            self._next = block

    def _done(self, _value: None, _error: Exception | None) -> None:
        self._asked = False
