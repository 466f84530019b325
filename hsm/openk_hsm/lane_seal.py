"""A lane's part of the seal: what it wants of its workers, and who waits to hear that they are logged in again.

OPEN ──close──▶ SEAL ──ask──▶ UNSEAL ──a worker logs in──▶ UNSEAL, answered ──admit──▶ OPEN
                  ▲             │                                 │
                  └── refused, or too late ◀──────────────────────┘ close
"""

from __future__ import annotations

from typing import Final

import trio

from openk_hsm.errors import HsmError, Sealed, Unavailable
from openk_hsm.frames import Intent
from openk_hsm.pending import Pending
from openk_hsm.seam import TokenInfo

WITHIN: Final = 20.0
"""Seconds that a worker may take to start, log in and open its token when an operator unseals."""


class LaneSeal:
    """`intent` is what each worker is greeted with. `logged_out`: the workers that said they are sealed."""

    def __init__(self, *, sealed: bool) -> None:
        self.intent = Intent.SEAL if sealed else Intent.OPEN
        self.logged_out: set[str] = set()
        self._until = 0.0
        self._waiting: list[Pending[TokenInfo]] = []
        self._turned = trio.Event()

    @property
    def open(self) -> bool:
        return self.intent is Intent.OPEN

    def error(self) -> Sealed:
        return Sealed("openk is sealed: its workers are logged out")

    def close(self, why: HsmError | None = None) -> None:
        """Seal; whoever waits for the contrary hears `why`."""
        self.intent = Intent.SEAL
        waiting, self._waiting = self._waiting, []
        self._turn()
        for pending in waiting:
            pending.fail(why if why is not None else self.error())

    def ask(self, now: float) -> Pending[TokenInfo]:
        """Greet workers with the wish to unseal. Answered by `answer`, or by `close` after a refusal or `WITHIN`."""
        pending: Pending[TokenInfo] = Pending()
        self._waiting.append(pending)
        self.intent = Intent.UNSEAL
        self._until = now + WITHIN
        self._turn()
        return pending

    def answer(self, info: TokenInfo) -> None:
        """A worker is logged in."""
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.resolve(info)

    def refuse(self, error: HsmError, path: str) -> bool:
        """What a worker answered instead; whether that ends a try to unseal. Call it while not `open` only."""
        if isinstance(error, Sealed):
            self.logged_out.add(path)
            return False
        return bool(self._waiting)

    def overdue(self, now: float) -> HsmError | None:
        """Why to `close` now: nobody answered in time."""
        late = self.intent is Intent.UNSEAL and bool(self._waiting) and now > self._until
        return Unavailable("no worker logged in in time") if late else None

    def admit(self) -> None:
        self.intent = Intent.OPEN
        self.logged_out.clear()

    def greeting(self, path: str) -> Intent:
        """What to greet that worker with: one that did not say yet that it is logged out must log out first, or an
        operator's unsealing would be no login."""
        if self.intent is Intent.UNSEAL and path not in self.logged_out:
            return Intent.SEAL
        return self.intent

    async def rest(self, seconds: float) -> None:
        """Sleep, but not over a change of mind."""
        turned = self._turned
        with trio.move_on_after(seconds):
            await turned.wait()

    def _turn(self) -> None:
        turned, self._turned = self._turned, trio.Event()
        turned.set()
