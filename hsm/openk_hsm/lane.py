"""The daemon's side of an HSM: a lane queues operations fairly, batches them to workers, and outlives workers.

    submit ─▶ Waiting ─▶ Dealer.pump (once a tick of trio, and when answers free an arena) ─▶ Link ─▶ worker
                                                                     settle ◀─ answers ◀─┘

A worker's death costs no caller an error: what is `pure` is done again, one operation at a time, so that one that
kills workers is found and quarantined (openk_hsm.quarantine).  Nothing here awaits an operation: `Pending`s are
settled from the task that reads a link.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, cast

import trio

from openk_hsm.calls import Calls
from openk_hsm.dealer import Dealer
from openk_hsm.dialling import Limits
from openk_hsm.entrance import Entrance
from openk_hsm.errors import (
    Busy,
    Diverged,
    HsmError,
    Interrupted,
    Sealed,
    Unavailable,
    Untrusted,
    WrongPin,
)
from openk_hsm.frames import BadFrame
from openk_hsm.lane_seal import LaneSeal
from openk_hsm.link import Cold, Link
from openk_hsm.pending import Pending, failed, resolved
from openk_hsm.quarantine import Quarantine
from openk_hsm.reactor import Reactor
from openk_hsm.seam import KeyHandle, LaneHealth, LaneState, Operation, TokenInfo
from openk_hsm.waiting import Handed, Waiting

Report = Callable[[str, Mapping[str, object]], None]

FIRST_DELAY: Final = 0.01
LONGEST_DELAY: Final = 1.0
NOBODY_DELAY: Final = 0.1
"""Between tries while nobody listens: a worker starts in 0.2 s, and a try costs 20 microseconds."""
TICK: Final = 0.25


def _nothing() -> None:
    """The default: nobody wants to know."""


def _report_nothing(event: str, fields: Mapping[str, object]) -> None:
    """The default: nobody listens."""


class WorkerLane(Calls):
    """`openk_hsm.seam.Lane` over worker processes. `run` it in a nursery; cancel that to stop. One trio thread."""

    def __init__(
        self,
        name: str,
        sockets: Sequence[str],
        *,
        limits: Limits | None = None,
        report: Report = _report_nothing,
        sealed: bool = False,
        reactor: Reactor | None = None,
    ) -> None:
        """`sockets`: one path for each worker of this token. `report`: events for the log, never with secrets.
        `sealed`: from the start; `unseal` opens it. `reactor`: one that runs; otherwise the lane runs its own."""
        self.name = name
        self._limits = limits or Limits()
        self._paths = tuple(sockets)
        self._report = report
        self._quarantine = Quarantine(
            self._limits.quarantine, lambda event, facts: report(event, {"lane": name, **facts})
        )
        self._waiting = Waiting(self._limits, self._quarantine)
        self._queue = self._waiting.queue
        self._links: list[Link] = []
        self._info: TokenInfo | None = None
        self.on_change: Callable[[], None] = _nothing
        """Called when a worker has come or gone, or the breaker has opened."""
        self._info_waiters: list[Pending[TokenInfo]] = []
        self._refusal: HsmError | None = None
        self._since = monotonic()  # when the last worker was there
        self._now = self._since
        self._ever_up = False
        self._open = not sealed  # False: the breaker fails requests at once
        self._seal = LaneSeal(sealed=sealed)
        self.entrance = Entrance(self._limits, self._seal)
        self._restarts = self._busy = self._rejected = self._trips = self._refusals = 0
        self._dealer = Dealer(self._waiting, self._links, self._limits)
        self.pump = self._dealer.pump
        """Give free workers what waits. Happens by itself once a tick of the loop."""
        self._own = None if reactor is not None else Reactor()
        self._reactor = reactor or cast(Reactor, self._own)
        self._pumping = False  # it is asked for
        self._changed = trio.Event()

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        if not self._open:
            self._rejected += 1
            operation.pending.fail(self._outage())
            return operation.pending
        if self._quarantine and self._quarantine.bars(operation, self._now):
            operation.pending.fail(Interrupted("workers died under such an operation of this client: quarantined"))
            return operation.pending
        operation.expires = self._now + self._limits.deadline
        try:
            self._queue.push(operation)
        except Busy as error:
            self._busy += 1
            operation.pending.fail(error)
            return operation.pending
        self._wake()
        return operation.pending

    def info(self) -> Pending[TokenInfo]:
        if self._info is not None:
            return resolved(self._info)
        if not self._open:
            return failed(self._outage())
        pending: Pending[TokenInfo] = Pending()
        self._info_waiters.append(pending)
        return pending

    def unload(self, key: KeyHandle) -> None:
        for link in list(self._links):
            with suppress(OSError):  # the link's reader sees it too and gives the worker up
                link.unload(key.slot)

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

    # --- sealing ---

    def seal(self) -> None:
        """Fail what waits and what is in flight with daemon.sealed, wipe the hand-off regions, have every worker log
        out, and refuse whatever comes. Idempotent."""
        self._seal.close()
        self._open = False
        self._fail_waiting(self._seal.error())
        self.give_up()  # whoever reads a link sees the end, and fails what is in flight
        self._announce()

    def unseal(self) -> Pending[TokenInfo]:
        """Have the workers log in anew, each with the PIN that it reads from its own source. Settled by the first that
        has; nothing is served before `admit`. HsmError when one refuses or none comes: sealed as before."""
        if self.state is not LaneState.SEALED:
            return self.info()
        return self._seal.ask(monotonic())

    def admit(self) -> None:
        """Serve again, after `unseal` was answered."""
        self._seal.admit()
        self._open = True
        self._refusal = None
        self._since = monotonic()
        self._announce()

    @property
    def workers(self) -> int:
        """Workers connected and logged in."""
        return len(self._links)

    @property
    def logged_out(self) -> int:
        """Workers that said that they are logged out."""
        return len(self._seal.logged_out)

    # --- running ---

    async def run(self) -> None:
        """Keep a link to each worker until cancelled; then all that waits fails with hsm.unavailable."""
        try:
            async with trio.open_nursery() as nursery:
                if self._own is not None:
                    nursery.start_soon(self._own.run)
                nursery.start_soon(self._tick_for_ever)
                for path in self._paths:
                    nursery.start_soon(self._keep, path)
        finally:
            self._open = False
            self._fail_waiting(Unavailable("the daemon is stopping"))
            if self._own is not None:
                self._own.close()

    def expect(self, identity: bytes) -> None:
        """Serve with the token of this identity only (`TokenInfo.identity`). Workers of another are given up."""
        self.entrance.expected = identity
        if self._info is not None and self._info.identity != identity:
            self.give_up()

    def give_up(self) -> None:
        """Drop every worker; those that come must prove themselves anew."""
        for link in self._links:
            link.socket.shutdown(socket.SHUT_RDWR)  # its reader sees the end

    def hand_over(self) -> Handed:
        """Take out what waits here, for another lane of the same root keys."""
        return self._waiting.hand_over()

    def take_over(self, handed: Handed) -> None:
        """Queue what another lane had."""
        self._waiting.take_over(handed)
        self._wake()

    async def ready(self) -> TokenInfo:
        """Wait for the first worker. Raises HsmError when the PIN latched or the breaker opened."""
        while self._info is None:
            if not self._open:
                raise self._outage()
            await self._changed.wait()
        return self._info

    def _wake(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._reactor.soon(self._pump_asked)

    def _pump_asked(self) -> None:
        self._pumping = False
        self.pump()

    async def _tick_for_ever(self) -> None:
        while True:
            self._now = now = monotonic()
            self._waiting.expire(now)
            if self._dealer.watch(now):
                self._report("hsm worker hangs", {"lane": self.name})
            late = self._seal.overdue(now)
            if late is not None:
                self._reseal(late)
            if self._links:
                self._since = now
            elif self._open and now - self._since > self._limits.breaker:
                self._trip()
            self.pump()
            await trio.sleep(TICK)

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
        again = LONGEST_DELAY if refusal.retry_after is None else refusal.retry_after
        return type(refusal)(str(refusal), device=refusal.device, retry_after=again)

    def _fail_waiting(self, error: HsmError) -> None:
        self._waiting.fail(error)
        infos, self._info_waiters = self._info_waiters, []
        for pending in infos:
            pending.fail(error)

    def queue(self, call: Cold) -> None:
        if not self._open:
            self._rejected += 1
            call.pending.fail(self._outage())
            return
        call.expires += self._now
        try:
            self._waiting.call(call)
        except Busy as error:
            self._busy += 1
            call.pending.fail(error)
        else:
            self._wake()

    async def _keep(self, path: str) -> None:
        """A link to one worker, again and again."""
        delay = FIRST_DELAY
        while True:
            longest = LONGEST_DELAY
            try:
                link = await self.entrance.connect(path)
            except HsmError as error:
                self._refuse(error, path)
            except OSError as error:
                if delay == FIRST_DELAY:
                    self._report("hsm worker not there", {"lane": self.name, "error": error.strerror})
                longest = NOBODY_DELAY
            else:
                delay = FIRST_DELAY
                await self._serve(link)
            await self._seal.rest(delay)
            delay = min(delay * 2, longest)

    def _refuse(self, error: HsmError, path: str) -> None:
        if not self._seal.open:
            if self._seal.refuse(error, path) and not self._links:
                self._reseal(error)
            return
        if isinstance(error, Sealed) and self._links:
            return  # it is about to see that another has unsealed the token
        self._refusals += 1
        self._report("hsm worker refuses", {"lane": self.name, "code": error.code, "text": str(error)})
        self._refusal = error
        if isinstance(error, WrongPin | Sealed | Untrusted) and not self._links and self._open:
            self._trip()

    def _reseal(self, why: HsmError) -> None:
        """A try to unseal has failed."""
        self._report("hsm unseal failed", {"lane": self.name, "code": why.code, "text": str(why)})
        self._seal.close(why)

    async def _serve(self, link: Link) -> None:
        """Read one link to its end, then save what was in flight."""
        self._arrive(link)
        reason = ""
        ended = trio.Event()

        def receive(_event: int) -> None:
            nonlocal reason
            try:
                link.receive()
            except (OSError, HsmError) as error:
                reason = str(error)
                if isinstance(error, HsmError) and not isinstance(error, BadFrame):
                    self._refusal = error
                self._reactor.forget(link.socket.fileno())
                ended.set()
            else:
                self._wake()

        self._reactor.watch(link.socket.fileno(), receive)
        try:
            await ended.wait()
        finally:
            self._reactor.forget(link.socket.fileno())
            self._links.remove(link)
            self._since = monotonic()
            self._dealer.forget(link)
            left, cold = link.close()
            self._save(left, cold)
        if not self._seal.open:
            return
        self._restarts += 1
        self._report("hsm worker lost", {"lane": self.name, "reason": reason, "in_flight": len(left) + len(cold)})
        self.on_change()
        self.pump()

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

    def _save(self, left: Sequence[Operation], cold: Sequence[Cold]) -> None:
        """What a dead worker had: again, one at a time, unless it died under that alone."""
        if not self._seal.open:
            for operation in left:
                operation.pending.fail(self._seal.error())
            for call in cold:
                call.pending.fail(self._seal.error())
            return
        self._waiting.save(left, cold, monotonic())


def open_lane(
    nursery: trio.Nursery,
    name: str,
    sockets: Sequence[str],
    *,
    limits: Limits | None = None,
    report: Report = _report_nothing,
) -> WorkerLane:
    """A lane running in `nursery`, STARTING: what is submitted waits for a worker.
    `await lane.ready()` for its token."""
    lane = WorkerLane(name, sockets, limits=limits, report=report)
    nursery.start_soon(lane.run)
    return lane
