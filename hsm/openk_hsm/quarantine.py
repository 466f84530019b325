"""Operations that kill workers: found by doing them again alone, answered with an error, and kept away for a while.

A worker that dies takes up to some hundred operations with it, and nothing says which of them it was. So each is done
again with nothing else in flight. One under which workers go on dying is given up; and because whoever sent it may
send it again, the same client's operations of that shape are refused unseen until `Limits.quarantine` seconds are over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from openk_hsm.errors import Interrupted
from openk_hsm.link import Cold
from openk_hsm.seam import Operation
from openk_hsm.serving import for_requests

KEPT: Final = 256
"""Shapes kept at once; then the oldest goes."""

Report = Callable[[str, Mapping[str, object]], None]
Shape = tuple[object, ...]


class Quarantine:
    """`until`: shapes that are refused, and until when. Empty as a rule: that is all that the hot path looks at."""

    def __init__(self, seconds: float, report: Report) -> None:
        self._seconds = seconds
        self._report = report
        self.until: dict[Shape, float] = {}
        self.caught = 0
        """Operations given up because workers died under them."""
        self.refused = 0
        """Operations refused unseen, because another of their shape was caught."""

    def catch(self, culprit: Operation | Cold, now: float) -> Interrupted:
        """Give it up: counted, reported once for each shape, and the error for whoever waits."""
        self.caught += 1
        shape = _shape(culprit)
        if shape not in self.until:
            told = {**_described(culprit), **for_requests([culprit.request])}
            self._report("hsm request quarantined", told)
        if shape[0]:  # not the daemon's own: without those nothing would work
            while len(self.until) >= KEPT:
                del self.until[next(iter(self.until))]
            self.until[shape] = now + self._seconds
        return Interrupted("workers died under this operation, and nothing else was in flight: it is quarantined")

    def bars(self, operation: Operation, now: float) -> bool:
        """Whether it must not reach a worker."""
        shape = _shape(operation)
        until = self.until.get(shape)
        if until is None:
            return False
        if until <= now:
            del self.until[shape]
            return False
        self.refused += 1
        return True


def _shape(culprit: Operation | Cold) -> Shape:
    """Who wants what, without any of its bytes: they may be secret."""
    if isinstance(culprit, Cold):
        return 0, culprit.method
    slot = 0 if culprit.key is None else culprit.key.slot
    return culprit.client, culprit.code, culprit.mechanism, slot, len(culprit.data)


def _described(culprit: Operation | Cold) -> Mapping[str, object]:
    if isinstance(culprit, Cold):
        return {"operation": culprit.method}
    key = culprit.key
    return {
        "operation": culprit.code.name,
        "mechanism": culprit.mechanism.name,
        "algorithm": "" if key is None else str(key.spec.algorithm),
        "bytes": len(culprit.data),
        "client": culprit.client,
    }
