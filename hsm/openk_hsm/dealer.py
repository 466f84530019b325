"""Gives what waits in a lane to links that have room, least loaded first."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from openk_hsm.dialling import Limits
from openk_hsm.errors import InvalidInput, TimedOut
from openk_hsm.fair_queue import FairQueue
from openk_hsm.link import Cold, Link
from openk_hsm.seam import Operation, Replay
from openk_hsm.waiting import Waiting

_QUEUED_COST: Final = 20
"""Microseconds that an operation costs of which nothing is known yet."""


class Dealer:
    """`links` is the lane's own list: whoever is in it is given work."""

    def __init__(self, waiting: Waiting, links: list[Link], limits: Limits) -> None:
        self._waiting = waiting
        self._links = links
        self._limits = limits
        self.batches = self.operations = 0
        """Sent since the start; one after the other they are how well work is batched."""
        self._kept_alive = monotonic()
        self._queue, self._again, self._cold = waiting.queue, waiting.again, waiting.cold
        self._alone: dict[Link, Operation | Cold] = {}  # what is done again there, with nothing else in flight

    def employ(self) -> None:
        """For whoever submits many in a row, in between: something for each worker that has nothing to do. For the
        others it gathers: a message with 24 operations costs both sides hardly more than one with 8."""
        for link in self._links:
            if self._queue.count and link.idle and link.has_room:
                with suppress(OSError):  # the link's reader will see the end of it
                    self._feed(link)

    def pump(self) -> None:
        """Give links with room all that waits. Happens by itself at the end of a round, and when answers free an
        arena."""
        refused: set[int] = set()
        while self._cold or self._again or self._queue.count:
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

    def watch(self, now: float) -> list[list[int]]:
        """For once a tick: fail what is late at a worker, give up workers that hang, and ask for each one's health once
        in a while. For which requests each of those that hang is at work."""
        hung: list[list[int]] = []
        for link in list(self._links):
            hangs = link.hung(now)
            if hangs:
                hung.append(link.requests)
            for operation in link.abandon(now):
                self._waiting.timed_out += 1
                operation.pending.fail(TimedOut("the HSM did not answer within the deadline"))
            if hangs:
                link.give_up()
        if now - self._kept_alive >= self._limits.keep_alive:
            self._kept_alive = now
            self._keep_alive(now)
        return hung

    def _keep_alive(self, now: float) -> None:
        """Sessions of some devices end when nobody uses them, and a sick device is found before somebody needs it."""
        for link in self._links:
            if not link.cold:
                call = Cold("health", (), Replay.NEVER, now + self._limits.deadline, self._limits.deadline)
                with suppress(OSError):  # its reader sees the end
                    link.send_cold(call, now)

    @property
    def load(self) -> float:
        """Microseconds of work for each worker, roughly; infinite without one."""
        links = self._links
        if not links:
            return inf
        return (self._queue.count * _QUEUED_COST + sum(link.cost for link in links)) / len(links)

    def stalled(self, now: float) -> bool:
        """Whether every worker lets a batch wait for longer than `Limits.stall`: hung, or busy with something long."""
        patience = now - self._limits.stall
        return all(any(batch.sent < patience for batch in link.batches.values()) for link in self._links)

    def forget(self, link: Link) -> None:
        """The link is closed."""
        self._alone.pop(link, None)

    def _feed(self, link: Link) -> bool:
        """Whether something was sent. What is done again has the link for itself, so that its death tells something."""
        lone = self._alone.get(link)
        if lone is not None:
            if not lone.pending.settled:
                return False
            del self._alone[link]
        again, cold = self._again, self._cold
        if again or (cold and cold[0].replays):
            return link.idle and self._do_again(link)
        if cold and not link.cold:
            link.send_cold(cold[0], monotonic())
            cold.popleft()
            return True
        if not self._queue.count:
            return False
        sent = link.send_batch(self._queue, monotonic())
        if sent:
            self.batches += 1
            self.operations += sent
            return True
        if link.idle:  # not even the whole region holds it
            operation = self._queue.pop()
            operation.pending.fail(InvalidInput("the operation is larger than the hand-off region"))
            return True
        return False

    def _do_again(self, link: Link) -> bool:
        """On an idle link. OSError: it was not sent, and keeps its place."""
        if self._again:
            single = FairQueue(1, 1)
            single.push(self._again[0])
            if not link.send_batch(single, monotonic(), self._again[0].replays):
                return False
            self._alone[link] = self._again.popleft()
        else:
            link.send_cold(self._cold[0], monotonic())
            self._alone[link] = self._cold.popleft()
        self._waiting.replayed += 1
        return True
