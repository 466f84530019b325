"""Gives what waits in a lane to links that have room, least loaded first."""

from __future__ import annotations

from time import monotonic

from openk_hsm.errors import InvalidInput
from openk_hsm.fair_queue import FairQueue
from openk_hsm.link import Cold, Link
from openk_hsm.seam import Operation
from openk_hsm.waiting import Waiting


class Dealer:
    """`links` is the lane's own list: whoever is in it is given work."""

    def __init__(self, waiting: Waiting, links: list[Link]) -> None:
        self._waiting = waiting
        self._links = links
        self._queue, self._again, self._cold = waiting.queue, waiting.again, waiting.cold
        self._alone: dict[Link, Operation | Cold] = {}  # what is done again there, with nothing else in flight

    def pump(self) -> None:
        """Happens by itself once a tick of the loop; whoever has a long tick may call it in between, so that workers
        are busy meanwhile."""
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
        if link.send_batch(self._queue, monotonic()):
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
            if not link.send_batch(single, monotonic()):
                return False
            self._alone[link] = self._again.popleft()
        else:
            link.send_cold(self._cold[0], monotonic())
            self._alone[link] = self._cold.popleft()
        self._waiting.replayed += 1
        return True
