"""What waits for a worker in a lane: fresh operations in a fair queue, those to be done again alone, cold calls.

                    submit ─▶ queue ──┐
    a worker died ─▶ save ─▶ again ───┼─▶ a link that has room
                  generate ─▶ cold ───┘

All of it is bounded, expires, and can be handed to another lane whole (openk_hsm.group).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_hsm.dialling import Limits
from openk_hsm.errors import Busy, HsmError, Interrupted, TimedOut
from openk_hsm.fair_queue import FairQueue
from openk_hsm.link import Cold
from openk_hsm.quarantine import Quarantine
from openk_hsm.seam import Operation, Replay

COLD_MOST: Final = 1024


@dataclass(frozen=True, slots=True)
class Handed:
    """Taken out of one lane's waiting, for another's: oldest first."""

    fresh: Sequence[Operation]
    again: Sequence[Operation]
    cold: Sequence[Cold]

    def __len__(self) -> int:
        return len(self.fresh) + len(self.again) + len(self.cold)


class Waiting:
    """`queue`, `again` and `cold` keep their identity: whoever pumps may hold on to them."""

    def __init__(self, limits: Limits, quarantine: Quarantine) -> None:
        self.queue = FairQueue(limits.per_client, limits.total)
        self.again: deque[Operation] = deque()
        self.cold: deque[Cold] = deque()
        self.timed_out = 0
        self.replayed = 0
        self._deaths = limits.deaths
        self._quarantine = quarantine

    def __len__(self) -> int:
        return self.queue.count + len(self.again) + len(self.cold)

    def call(self, cold: Cold) -> None:
        """Queue a cold call. Raises Busy."""
        if len(self.cold) >= COLD_MOST:
            raise Busy("too many calls wait for the HSM", retry_after=1.0)
        self.cold.append(cold)

    def save(self, left: Sequence[Operation], cold: Sequence[Cold], now: float) -> None:
        """What a dead worker had: again, alone, unless it is what kills workers or must not be done again.

        `replays` counts deaths: one that it shared with others, and each that it had for itself. A worker may be killed
        by somebody else at that very moment, so one death alone is no proof."""
        alone = len(left) + len(cold) == 1
        for operation in left:
            if alone and operation.replays + 1 >= self._deaths:
                operation.pending.fail(self._quarantine.catch(operation, now))
            else:
                operation.replays = operation.replays + 1 if alone else max(1, operation.replays)
                self.again.append(operation)
        for call in cold:
            if call.replay is not Replay.PURE:
                call.pending.fail(Interrupted("the worker died while it did this"))
            elif alone and call.replays + 1 >= self._deaths:
                call.pending.fail(self._quarantine.catch(call, now))
            else:
                call.replays = call.replays + 1 if alone else max(1, call.replays)
                self.cold.appendleft(call)

    def expire(self, now: float) -> None:
        """Fail what has waited too long."""
        for operation in list(self.queue.expired(now)):
            self._time_out(operation)
        for operation in _late(self.again, now):
            self._time_out(operation)
        for call in _late_calls(self.cold, now):
            self._time_out(call)

    def _time_out(self, waiter: Operation | Cold) -> None:
        self.timed_out += 1
        waiter.pending.fail(TimedOut("the HSM had no time for this within its deadline"))

    def fail(self, error: HsmError) -> None:
        """Fail all of it."""
        if not len(self):
            return
        handed = self.hand_over()
        for operation in (*handed.again, *handed.fresh):
            operation.pending.fail(error)
        for call in handed.cold:
            call.pending.fail(error)

    def hand_over(self) -> Handed:
        """Take out all of it."""
        handed = Handed(self.queue.drain(), tuple(self.again), tuple(self.cold))
        self.again.clear()
        self.cold.clear()
        return handed

    def take_over(self, handed: Handed) -> None:
        """Queue what another lane had, each with the deadline it had. What does not fit fails with hsm.busy."""
        self.again.extend(handed.again)
        for operation in handed.fresh:
            try:
                self.queue.push(operation)
            except Busy as error:
                operation.pending.fail(error)
        for call in handed.cold:
            try:
                self.call(call)
            except Busy as error:
                call.pending.fail(error)


def _late(waiting: deque[Operation], now: float) -> list[Operation]:
    """Take out of `waiting` what has expired."""
    late = [operation for operation in waiting if operation.expires <= now]
    for operation in late:
        waiting.remove(operation)
    return late


def _late_calls(waiting: deque[Cold], now: float) -> list[Cold]:
    late = [call for call in waiting if call.expires <= now]
    for call in late:
        waiting.remove(call)
    return late
