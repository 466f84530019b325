"""Which workers a lane lets in: those whose token is the one it always was, with the root keys it should have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from openk_hsm.dialling import Limits, dial
from openk_hsm.errors import Untrusted
from openk_hsm.frames import Intent
from openk_hsm.lane_seal import LaneSeal
from openk_hsm.link import Link

Proof = Callable[[Link], Awaitable[None]]


class Entrance:
    """`known`: identity of the token that was served first. `expected`: of the one that must be. `prove`: asked of each
    link before it is used; raises HsmError when it must not be."""

    def __init__(self, limits: Limits, seal: LaneSeal) -> None:
        self._limits = limits
        self._seal = seal
        self.known: bytes | None = None
        self.expected: bytes | None = None
        self.prove: Proof | None = None

    async def connect(self, path: str) -> Link:
        """Raises OSError when nobody listens, HsmError when the worker says why it does not serve, or must not."""
        link = await dial(path, self._limits, self._seal.greeting(path))
        try:
            await self._vet(link)
        except BaseException:
            link.close()
            raise
        return link

    async def _vet(self, link: Link) -> None:
        if self._seal.intent is Intent.SEAL:  # meanwhile
            raise self._seal.error()
        identity = link.info.identity
        if self.known is not None and identity != self.known:
            raise Untrusted("a worker serves another token than before")
        if self.expected is not None and identity != self.expected:
            raise Untrusted("a worker serves another token than the one that this state folder is bound to")
        if self.prove is not None:
            await self.prove(link)
