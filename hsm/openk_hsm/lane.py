"""The daemon's side of an HSM: a lane queues operations fairly, batches them to workers, and outlives workers.

    submit ─▶ Waiting ─▶ Dealer.pump (once a tick of trio, and when answers free an arena) ─▶ Link ─▶ worker
                                                                     settle ◀─ answers ◀─┘

A worker's death costs no caller an error: what is `pure` is done again, one operation at a time, so that one that
kills workers is found and quarantined (openk_hsm.quarantine).  Nothing here awaits an operation: `Pending`s are
settled from the task that reads a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, cast

import trio

from openk_hsm.condition import LONGEST_DELAY, Condition, Report, report_nothing
from openk_hsm.dialling import Limits
from openk_hsm.errors import (
    Busy,
    HsmError,
    Interrupted,
    Sealed,
    Unavailable,
    Untrusted,
    WrongPin,
)
from openk_hsm.frames import BadFrame
from openk_hsm.lane_health import LaneState
from openk_hsm.link import Cold, Link
from openk_hsm.pending import Pending
from openk_hsm.reactor import Reactor
from openk_hsm.seam import KeyHandle, Operation, TokenInfo
from openk_hsm.serving import SERVING, for_requests
from openk_hsm.waiting import Handed

FIRST_DELAY: Final = 0.01
NOBODY_DELAY: Final = 0.1
"""Between tries while nobody listens: a worker starts in 0.2 s, and a try costs 20 microseconds."""
TICK: Final = 0.25


class WorkerLane(Condition):
    """`openk_hsm.seam.Lane` over worker processes. `run` it in a nursery; cancel that to stop. One trio thread."""

    def __init__(
        self,
        name: str,
        sockets: Sequence[str],
        *,
        limits: Limits | None = None,
        report: Report = report_nothing,
        sealed: bool = False,
        reactor: Reactor | None = None,
    ) -> None:
        """`sockets`: one path for each worker of this token. `report`: events for the log, never with secrets.
        `sealed`: from the start; `unseal` opens it. `reactor`: one that runs; otherwise the lane runs its own."""
        super().__init__(name, limits or Limits(), report, sealed=sealed)
        self._paths = tuple(sockets)
        self._own = None if reactor is not None else Reactor()
        self._reactor = reactor or cast(Reactor, self._own)
        self._pumping = False  # it is asked for

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        operation.request = SERVING.request
        if not self._open:
            self._rejected += 1
            operation.pending.fail(self._outage())
            return operation.pending
        now = monotonic()  # not that of the last tick: the deadline would begin before the operation was there
        if self._barred and self._quarantine.bars(operation, now):
            operation.pending.fail(Interrupted("workers died under such an operation of this client: quarantined"))
            return operation.pending
        operation.expires = now + self._limits.deadline
        try:
            self._queue.push(operation)
        except Busy as error:
            self._busy += 1
            operation.pending.fail(error)
            return operation.pending
        if not self._pumping:
            self._wake()
        return operation.pending

    def unload(self, key: KeyHandle) -> None:
        for link in list(self._links):
            with suppress(OSError):  # the link's reader sees it too and gives the worker up
                link.unload(key.slot)

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
            link.give_up()

    def hand_over(self) -> Handed:
        """Take out what waits here, for another lane of the same root keys."""
        return self._waiting.hand_over()

    def take_over(self, handed: Handed) -> None:
        """Queue what another lane had."""
        self._waiting.take_over(handed)
        self._wake()

    def _wake(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._reactor.soon(self._pump_asked)

    def _pump_asked(self) -> None:
        self._pumping = False
        self.pump()

    async def _tick_for_ever(self) -> None:
        while True:
            self._tick(monotonic())
            await trio.sleep(TICK)

    def _tick(self, now: float) -> None:
        """What has to be done in time, and is asked for by nobody."""
        self._waiting.expire(now)
        for asked in self._dealer.watch(now):
            self._report("hsm worker hangs", {"lane": self.name, **for_requests(asked)})
        late = self._seal.overdue(now)
        if late is not None:
            self._reseal(late)
        if self._links:
            self._since = now
        elif self._open and now - self._since > self._limits.breaker:
            self._trip()
        self.pump()

    def queue(self, call: Cold) -> None:
        if not self._open:
            self._rejected += 1
            call.pending.fail(self._outage())
            return
        call.expires += monotonic()
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
        asked = for_requests([operation.request for operation in left] + [call.request for call in cold])
        told = {"lane": self.name, "reason": reason, "in_flight": len(left) + len(cold), **asked}
        self._report("hsm worker lost", told)
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
    report: Report = report_nothing,
) -> WorkerLane:
    """A lane running in `nursery`, STARTING: what is submitted waits for a worker.
    `await lane.ready()` for its token."""
    lane = WorkerLane(name, sockets, limits=limits, report=report)
    nursery.start_soon(lane.run)
    return lane
