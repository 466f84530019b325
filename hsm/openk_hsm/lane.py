"""The daemon's side of an HSM: a lane queues operations fairly, batches them to workers, and outlives workers.

    submit ─▶ FairQueue ─▶ pump (once a tick of trio, and when answers free an arena) ─▶ Link ─▶ worker
                                                                  settle ◀─ answers ◀─┘

A worker's death costs no caller an error: what is `pure` is done again, one operation at a time, so that one that
kills workers is found; it is given up after the second death.  Nothing here awaits an operation: `Pending`s are
settled from the task that reads a link.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, TypeVar

import trio

from openk_hsm import frames
from openk_hsm.dialling import Limits, dial
from openk_hsm.errors import (
    Busy,
    HsmError,
    Interrupted,
    InvalidInput,
    Sealed,
    TimedOut,
    Unavailable,
    Untrusted,
    WrongPin,
)
from openk_hsm.fair_queue import FairQueue
from openk_hsm.frames import BadFrame, Intent
from openk_hsm.lane_seal import LaneSeal
from openk_hsm.link import Cold, Link
from openk_hsm.pending import Pending, failed, resolved
from openk_hsm.seam import (
    Generated,
    KeyHandle,
    KeySpec,
    LaneHealth,
    LaneState,
    Notice,
    ObjectInfo,
    Operation,
    Replay,
    TokenInfo,
    Wrapper,
)

T = TypeVar("T")
Report = Callable[[str, Mapping[str, object]], None]

FIRST_DELAY: Final = 0.01
LONGEST_DELAY: Final = 1.0
NOBODY_DELAY: Final = 0.1
"""Between tries while nobody listens: a worker starts in 0.2 s, and a try costs 20 microseconds."""
TICK: Final = 0.25
_MOST_COLD: Final = 1024


def _report_nothing(event: str, fields: Mapping[str, object]) -> None:
    """The default: nobody listens."""


class WorkerLane:
    """`openk_hsm.seam.Lane` over worker processes. `run` it in a nursery; cancel that to stop. One trio thread."""

    def __init__(
        self,
        name: str,
        sockets: Sequence[str],
        *,
        limits: Limits | None = None,
        report: Report = _report_nothing,
        sealed: bool = False,
    ) -> None:
        """`sockets`: one path for each worker of this token. `report`: events for the log, never with secrets.
        `sealed`: from the start; `unseal` opens it."""
        self.name = name
        self._limits = limits or Limits()
        self._paths = tuple(sockets)
        self._report = report
        self._queue = FairQueue(self._limits.per_client, self._limits.total)
        self._replay: deque[Operation] = deque()
        self._cold: deque[Cold] = deque()
        self._links: list[Link] = []
        self._info: TokenInfo | None = None
        self._expected: bytes | None = None
        self._info_waiters: list[Pending[TokenInfo]] = []
        self._refusal: HsmError | None = None
        self._since = monotonic()  # when the last worker was there
        self._now = self._since
        self._ever_up = False
        self._open = not sealed  # False: the breaker fails requests at once
        self._seal = LaneSeal(sealed=sealed)
        self._restarts = 0
        self._replayed = 0
        self._pumper: trio.lowlevel.Task | None = None
        self._changed = trio.Event()

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        if not self._open:
            operation.pending.fail(self._outage())
            return operation.pending
        operation.expires = self._now + self._limits.deadline
        try:
            self._queue.push(operation)
        except Busy as error:
            operation.pending.fail(error)
            return operation.pending
        self._wake()
        return operation.pending

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        arguments = (frames.spec_to_wire(spec), wrapper.kw.slot, wrapper.mac.slot, context)
        deadline = self._limits.generate_deadline
        return self._call("generate", arguments, frames.generated_from_wire, Replay.PURE, deadline, wrapper)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        arguments = (frames.spec_to_wire(spec), label, id_)
        deadline = self._limits.generate_deadline
        return self._call("generate_resident", arguments, frames.generated_from_wire, Replay.JOURNALED, deadline)

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return self._call("destroy_resident", (label, id_), bool, Replay.PURE, self._limits.deadline)

    def objects(self) -> Pending[Sequence[ObjectInfo]]:
        return self._call("objects", (), frames.objects_from_wire, Replay.PURE, self._limits.deadline)

    def attest(self, label: str, id_: bytes) -> Pending[Sequence[bytes]]:
        return self._call("attest", (label, id_), frames.certificates_from_wire, Replay.PURE, self._limits.deadline)

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        return self._call("notices", (after,), frames.notices_from_wire, Replay.PURE, self._limits.deadline)

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
        waiting = self._queue.count + len(self._replay) + len(self._cold)
        workers, retry = len(self._links), None if self._open else LONGEST_DELAY
        refusal = "" if self._refusal is None else self._refusal.code
        restarts, replayed = self._restarts, self._replayed
        return LaneHealth(self.name, self.state, workers, waiting, flying, restarts, replayed, refusal, retry)

    @property
    def state(self) -> LaneState:
        if not self._seal.open or (isinstance(self._refusal, Sealed) and not self._links):
            return LaneState.SEALED
        if self._links:
            return LaneState.UP
        if isinstance(self._refusal, WrongPin):
            return LaneState.LATCHED
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
        for link in self._links:
            link.socket.shutdown(socket.SHUT_RDWR)  # its reader sees the end, and fails what is in flight
        self._announce()

    def unseal(self) -> Pending[TokenInfo]:
        """Have the workers log in anew, each with the PIN that it reads from its own source. Settled by the first that
        has; nothing is served before `admit`. HsmError when one refuses or none comes: sealed as before."""
        if self._seal.open:
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
    def logged_out(self) -> int:
        """Workers that said that they are logged out."""
        return len(self._seal.logged_out)

    # --- running ---

    async def run(self) -> None:
        """Keep a link to each worker until cancelled; then all that waits fails with hsm.unavailable."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump_for_ever)
                nursery.start_soon(self._tick_for_ever)
                for path in self._paths:
                    nursery.start_soon(self._keep, path)
        finally:
            self._open = False
            self._fail_waiting(Unavailable("the daemon is stopping"))

    def expect(self, identity: bytes) -> None:
        """Serve with the token of this identity only (`TokenInfo.identity`). Workers of another are given up."""
        self._expected = identity
        for link in self._links:
            if link.info.identity != identity:
                link.socket.shutdown(socket.SHUT_RDWR)  # its reader sees the end

    async def ready(self) -> TokenInfo:
        """Wait for the first worker. Raises HsmError when the PIN latched or the breaker opened."""
        while self._info is None:
            if not self._open:
                raise self._outage()
            await self._changed.wait()
        return self._info

    async def _pump_for_ever(self) -> None:
        def stop(_: object) -> trio.lowlevel.Abort:
            self._pumper = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            self._pumper = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(stop)
            self.pump()

    def _wake(self) -> None:
        task = self._pumper
        if task is not None:
            self._pumper = None
            trio.lowlevel.reschedule(task)

    async def _tick_for_ever(self) -> None:
        while True:
            self._now = now = monotonic()
            for operation in list(self._queue.expired(now)):
                operation.pending.fail(TimedOut("the HSM had no time for this within its deadline"))
            for link in list(self._links):
                for operation in link.abandon(now):
                    operation.pending.fail(TimedOut("the HSM did not answer within the deadline"))
                if link.hung(now):
                    self._report("hsm worker hangs", {"lane": self.name})
                    link.socket.shutdown(socket.SHUT_RDWR)  # its reader sees the end
            self._expire_waiting(now)
            late = self._seal.overdue(now)
            if late is not None:
                self._reseal(late)
            if self._links:
                self._since = now
            elif self._open and now - self._since > self._limits.breaker:
                self._trip()
            self.pump()
            await trio.sleep(TICK)

    def _expire_waiting(self, now: float) -> None:
        for waiting in (self._replay, self._cold):
            for _ in range(len(waiting)):
                item = waiting.popleft()
                if item.expires <= now:
                    item.pending.fail(TimedOut("the HSM had no time for this within its deadline"))
                else:
                    waiting.append(item)  # type: ignore[arg-type]  # it came from there

    def _trip(self) -> None:
        """Open the breaker: fail what waits, and what comes, at once."""
        self._open = False
        outage = self._outage()
        self._report("hsm down", {"lane": self.name, "code": outage.code})
        self._fail_waiting(outage)
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _outage(self) -> HsmError:
        if not self._seal.open:
            return self._seal.error()
        refusal = self._refusal
        if refusal is None:
            return Unavailable(f"no worker of {self.name} is there", retry_after=LONGEST_DELAY)
        return type(refusal)(str(refusal), device=refusal.device, retry_after=LONGEST_DELAY)

    def _fail_waiting(self, error: HsmError) -> None:
        waiting = [*self._replay, *self._queue.drain()]
        self._replay.clear()
        cold, self._cold = self._cold, deque()
        infos, self._info_waiters = self._info_waiters, []
        for operation in waiting:
            operation.pending.fail(error)
        for call in cold:
            call.pending.fail(error)
        for pending in infos:
            pending.fail(error)

    def pump(self) -> None:
        """Give free workers what waits, least loaded first. Happens by itself once a tick; whoever has a long tick may
        call it in between, so that workers are busy meanwhile."""
        refused: set[int] = set()
        while self._cold or self._replay or self._queue.count:
            link = min(
                (link for link in self._links if link.has_room and id(link) not in refused),
                key=lambda link: link.cost,
                default=None,
            )
            if link is None:
                return
            try:
                sent = self._feed(link)
            except OSError:
                sent = False  # the link's reader will see the end of it
            if not sent:
                refused.add(id(link))

    def _feed(self, link: Link) -> bool:
        if self._replay:
            if not link.idle:
                return False
            single = FairQueue(1, 1)
            single.push(self._replay[0])
            if not link.send_batch(single, monotonic()):  # OSError: not sent, it keeps its place
                return False
            self._replay.popleft()
            self._replayed += 1
            return True
        if self._cold and not link.cold:
            link.send_cold(self._cold[0], monotonic())
            self._cold.popleft()
            return True
        if not self._queue.count:
            return False
        if link.send_batch(self._queue, monotonic()):
            return True
        if link.idle:  # not even the whole region holds it
            operation = self._queue.pop()
            operation.pending.fail(InvalidInput("the operation is larger than the hand-off region"))
            return True
        return False

    def _call(
        self,
        method: str,
        arguments: tuple[object, ...],
        parse: Callable[[object], T],
        replay: Replay,
        deadline: float,
        wrapper: Wrapper | None = None,
    ) -> Pending[T]:
        answer: Pending[T] = Pending()
        cold = Cold(method, arguments, replay, self._now + deadline, deadline, wrapper=wrapper)

        def finish() -> None:
            try:
                answer.resolve(parse(cold.pending.result()))
            except HsmError as error:
                answer.fail(error)

        cold.pending.when_settled(finish)
        if not self._open:
            cold.pending.fail(self._outage())
        elif len(self._cold) >= _MOST_COLD:
            cold.pending.fail(Busy("too many calls wait for the HSM", retry_after=1.0))
        else:
            self._cold.append(cold)
            self._wake()
        return answer

    async def _keep(self, path: str) -> None:
        """A link to one worker, again and again."""
        delay = FIRST_DELAY
        while True:
            longest = LONGEST_DELAY
            try:
                link = await self._connect(path)
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
        self._report("hsm worker refuses", {"lane": self.name, "code": error.code, "text": str(error)})
        self._refusal = error
        if isinstance(error, WrongPin | Sealed) and not self._links and self._open:
            self._trip()

    def _reseal(self, why: HsmError) -> None:
        """A try to unseal has failed."""
        self._report("hsm unseal failed", {"lane": self.name, "code": why.code, "text": str(why)})
        self._seal.close(why)

    async def _connect(self, path: str) -> Link:
        """Raises OSError when nobody listens, HsmError when the worker says why it does not serve."""
        intent = self._seal.intent
        link = await dial(path, self._limits, intent)
        if self._seal.intent is Intent.SEAL:  # meanwhile
            link.close()
            raise self._seal.error()
        if self._info is not None and link.info.identity != self._info.identity:
            link.close()
            raise Untrusted("a worker serves another token than before")
        if self._expected is not None and link.info.identity != self._expected:
            link.close()
            raise Untrusted("a worker serves another token than the one that this state folder is bound to")
        return link

    async def _serve(self, link: Link) -> None:
        """Read one link to its end, then save what was in flight."""
        self._arrive(link)
        reason = ""
        try:
            while True:
                await trio.lowlevel.wait_readable(link.socket)
                while link.receive():
                    pass
                self.pump()
        except (OSError, BadFrame) as error:
            reason = str(error)
        finally:
            self._links.remove(link)
            self._since = monotonic()
            left, cold = link.close()
            self._save(left, cold)
        if not self._seal.open:
            return
        self._restarts += 1
        self._report("hsm worker lost", {"lane": self.name, "reason": reason, "in_flight": len(left) + len(cold)})
        self.pump()

    def _arrive(self, link: Link) -> None:
        self._links.append(link)
        self._info = link.info
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
        self.pump()

    def _save(self, left: Sequence[Operation], cold: Sequence[Cold]) -> None:
        """What a dead worker had: again, one at a time, unless it died under that alone."""
        if not self._seal.open:
            for operation in left:
                operation.pending.fail(self._seal.error())
            for call in cold:
                call.pending.fail(self._seal.error())
            return
        alone = len(left) == 1
        for operation in left:
            if operation.replays and alone:
                operation.pending.fail(Interrupted("two workers died under this operation"))
            else:
                operation.replays = 1
                self._replay.append(operation)
        for call in cold:
            if call.replay is not Replay.PURE or call.replays:
                call.pending.fail(Interrupted("the worker died while it did this"))
            else:
                call.replays = 1
                self._cold.append(call)


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
