"""How a lane is: its workers, its token, its breaker, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

import trio

from openk_hsm.calls import Calls
from openk_hsm.dealer import Dealer
from openk_hsm.dialling import Limits
from openk_hsm.entrance import Entrance
from openk_hsm.errors import Diverged, HsmError, Sealed, Unavailable, WrongPin
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.lane_seal import LaneSeal
from openk_hsm.link import Link
from openk_hsm.pending import Pending, failed, resolved
from openk_hsm.quarantine import Quarantine
from openk_hsm.seam import TokenInfo
from openk_hsm.waiting import Waiting

Report = Callable[[str, Mapping[str, object]], None]

LONGEST_DELAY: Final = 1.0
"""Seconds between tries to reach a worker that says why it does not serve; for callers, where nobody knows better."""
SHORTEST_DELAY: Final = 0.1
"""Seconds that callers are told to wait at least: a worker that loads its module anew at once says none."""


def _nothing() -> None:
    """The default: nobody wants to know."""


def report_nothing(event: str, fields: Mapping[str, object]) -> None:
    """The default: nobody listens."""


class Condition(Calls):
    """STARTING ─▶ UP ⇄ RESTARTING ─(breaker)─▶ DOWN ─▶ UP; LATCHED, DIVERGED and SEALED from anywhere."""

    def __init__(self, name: str, limits: Limits, report: Report, *, sealed: bool) -> None:
        self.name = name
        self._limits = limits
        self._report = report
        self._quarantine = Quarantine(limits.quarantine, lambda event, facts: report(event, {"lane": name, **facts}))
        self._barred = self._quarantine.until
        self._waiting = Waiting(limits, self._quarantine)
        self._queue = self._waiting.queue
        self._links: list[Link] = []
        self._info: TokenInfo | None = None
        self._info_waiters: list[Pending[TokenInfo]] = []
        self.on_change: Callable[[], None] = _nothing
        """Called when a worker has come or gone, or the breaker has opened."""
        self._refusal: HsmError | None = None
        self._since = monotonic()  # when the last worker was there
        self._ever_up = False
        self._open = not sealed  # False: the breaker fails requests at once
        self._seal = LaneSeal(sealed=sealed)
        self.entrance = Entrance(limits, self._seal)
        self._restarts = self._busy = self._rejected = self._trips = self._refusals = 0
        self._dealer = Dealer(self._waiting, self._links, limits)
        self.pump = self._dealer.pump
        self.employ = self._dealer.employ
        """As the dealer's."""
        self._changed = trio.Event()

    # --- what it says ---

    def info(self) -> Pending[TokenInfo]:
        if self._info is not None:
            return resolved(self._info)
        if not self._open:
            return failed(self._outage())
        pending: Pending[TokenInfo] = Pending()
        self._info_waiters.append(pending)
        return pending

    async def ready(self) -> TokenInfo:
        """Wait for the first worker. Raises HsmError when the PIN latched or the breaker opened."""
        while self._info is None:
            if not self._open:
                raise self._outage()
            await self._changed.wait()
        return self._info

    def health(self) -> LaneHealth:
        flying = sum(batch.left for link in self._links for batch in link.batches.values())
        flying += sum(len(link.cold) for link in self._links)
        return LaneHealth(
            self.name,
            self.state,
            len(self._links),
            len(self._waiting),
            flying,
            self._restarts,
            self._waiting.replayed,
            "" if self._refusal is None else self._refusal.code,
            None if self._open else self._outage().retry_after,
            quarantined=self._quarantine.caught,
            timed_out=self._waiting.timed_out,
            busy=self._busy,
            rejected=self._rejected + self._quarantine.refused,
            trips=self._trips,
            refusals=self._refusals,
            batches=self._dealer.batches,
            operations=self._dealer.operations,
            loaded=sum(link.loaded for link in self._links),
        )

    @property
    def load(self) -> float:
        """Microseconds of work that wait for each worker, roughly: for whoever shares work between lanes. Infinite
        without a worker."""
        return self._dealer.load

    @property
    def stalled(self) -> bool:
        """Whether every worker lets a batch wait for longer than it should: hung, or busy with something long."""
        return self._dealer.stalled(monotonic())

    @property
    def token(self) -> TokenInfo | None:
        """What the worker that connected last said of the token; None before the first."""
        return self._info

    @property
    def state(self) -> LaneState:
        if not self._seal.open or (isinstance(self._refusal, Sealed) and not self._links):
            return LaneState.SEALED
        if self._links:
            return LaneState.UP
        if isinstance(self._refusal, WrongPin):
            return LaneState.LATCHED
        if isinstance(self._refusal, Diverged):
            return LaneState.DIVERGED
        if not self._open:
            return LaneState.DOWN
        return LaneState.RESTARTING if self._ever_up else LaneState.STARTING

    @property
    def workers(self) -> int:
        """Workers connected and logged in."""
        return len(self._links)

    @property
    def logged_out(self) -> int:
        """Workers that said that they are logged out."""
        return len(self._seal.logged_out)

    # --- what changes it ---

    def _arrive(self, link: Link) -> None:
        self._links.append(link)
        self._info = link.info
        self.entrance.known = link.info.identity
        self._ever_up = True
        if self._seal.open:
            self._open = True
            self._refusal = None
        else:
            self._seal.answer(link.info)
        waiters, self._info_waiters = self._info_waiters, []
        for pending in waiters:
            pending.resolve(link.info)
        self._announce()
        self.on_change()
        self.pump()

    def _trip(self) -> None:
        """Open the breaker: fail what waits, and what comes, at once."""
        self._open = False
        self._trips += 1
        outage = self._outage()
        self._report("hsm down", {"lane": self.name, "code": outage.code})
        self._fail_waiting(outage)
        self._announce()
        self.on_change()

    def _announce(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _outage(self) -> HsmError:
        if not self._seal.open:
            return self._seal.error()
        refusal = self._refusal
        if refusal is None:
            return Unavailable(f"no worker of {self.name} is there", retry_after=LONGEST_DELAY)
        again = LONGEST_DELAY if refusal.retry_after is None else max(SHORTEST_DELAY, refusal.retry_after)
        return type(refusal)(str(refusal), device=refusal.device, retry_after=again)

    def _fail_waiting(self, error: HsmError) -> None:
        self._waiting.fail(error)
        infos, self._info_waiters = self._info_waiters, []
        for pending in infos:
            pending.fail(error)
