"""Whether each HSM really does its work: on a cadence a key is made and wrapped in it, unwrapped twice, and both used;
or, where the device wraps no keys, data is sealed and opened.

Nobody waits for a round trip: it is driven like a request, and while it is not answered the finding says since when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, Protocol

import trio

from openk_daemon.hsms import Device, root_of
from openk_daemon.observe.exposition import Labels
from openk_daemon.observe.health import OK, Finding, State
from openk_daemon.observe.log import Log
from openk_hsm.errors import HsmError
from openk_hsm.lane_health import LaneState
from openk_hsm.pending import drive
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Purpose, TokenInfo, Wrapped
from openk_hsm.selftest import SHARED, Selftest, Verdict
from openk_hsm.selftest import Finding as Checked

_WRAPPED: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
"""What the check `wrapping` makes."""

Handles = Callable[[str], Callable[[KeySpec, Wrapped], KeyHandle]]
"""For the HSM that records name so: what makes handles of its keys."""


class ProbedLane(Protocol):
    """openk_hsm.lane.WorkerLane."""

    @property
    def state(self) -> LaneState: ...
    @property
    def stalled(self) -> bool: ...
    @property
    def token(self) -> TokenInfo | None: ...


class Probe:
    """One HSM's round trips, one at a time."""

    def __init__(self, device: Device, lane: ProbedLane, handles: Handles, log: Log) -> None:
        self.name = device.name
        self.seconds = 0.0
        """Of the last round trip that was answered."""
        self.failures = 0
        self._device = device
        self._lane = lane
        self._handle = handles(device.recorded)
        self._log = log
        self._room = memoryview(bytearray(SHARED))  # the checks made here put nothing there
        self._since = 0.0  # when the one that is not answered yet was sent; 0.0: there is none
        self._trouble = ""

    @property
    def serves(self) -> bool:
        return self._lane.state is LaneState.UP

    @property
    def elapsed(self) -> float:
        """Seconds of the last round trip, or, where that is longer, since the one under way was sent."""
        return max(self.seconds, monotonic() - self._since if self._since else 0.0)

    def start(self) -> None:
        """Send a round trip, unless one is under way or there is nobody to send it to."""
        token = self._lane.token
        if self._since or not self.serves or token is None:
            return
        test = Selftest(self._device.lane, token, root_of(self._device.recorded), self._handle, self._room, 0)
        self._since = monotonic()
        drive(test.run("wrapping" if _WRAPPED in token.wrapped else "sealing"), self._finish)

    def _finish(self, checked: Checked | None, error: Exception | None) -> None:
        self.seconds = monotonic() - self._since
        self._since = 0.0
        before, self._trouble = self._trouble, ""
        if checked is not None and checked.verdict is Verdict.FAILED:
            self._trouble, error = checked.text, checked.error
        if isinstance(error, HsmError):
            self._trouble = f"its round trip ended with {error.code}"
        elif error is not None:
            self._trouble = "its round trip failed by a mistake of openk; see the log"
        if self._trouble:
            self.failures += 1
            if not before:
                self._log.error("hsm.probe.failed", error, hsm=self.name, text=self._trouble)
        elif before:
            self._log.info("hsm.probe.right", hsm=self.name)

    def trouble(self, limit: float) -> str:
        """What is wrong; empty when nothing is. `limit`: seconds that a round trip may take."""
        if not self.serves:
            return f"{self.name} is {self._lane.state.value}: no round trip is tried"
        waited = monotonic() - self._since if self._since else 0.0
        if waited > limit:
            return f"{self.name} has not answered a round trip for {waited:.0f} s"
        if self._lane.stalled:
            return f"{self.name} lets operations wait: no worker of it answers"
        if self._trouble:
            return f"{self.name}: {self._trouble}"
        return f"{self.name}'s round trip took {self.seconds:.1f} s" if self.seconds > limit else ""


class Probes:
    def __init__(self, probes: Sequence[Probe], every: float, limit: float) -> None:
        """Seconds each: between two round trips of an HSM, and that one may take."""
        self.probes = probes
        self.every = every
        self.limit = limit

    async def run(self) -> None:
        while True:
            for probe in self.probes:
                probe.start()
            await trio.sleep(self.every)

    def finding(self) -> Finding:
        """A health check: at once, from what is known."""
        troubles = {probe.name: probe.trouble(self.limit) for probe in self.probes}
        told = "; ".join(filter(None, troubles.values()))
        if not told:
            return OK
        return Finding(State.DEGRADED if any(not trouble for trouble in troubles.values()) else State.FAILED, told)

    def times(self) -> list[tuple[Labels, float]]:
        return [((("lane", probe.name),), probe.elapsed) for probe in self.probes]

    def failures(self) -> list[tuple[Labels, float]]:
        return [((("lane", probe.name),), probe.failures) for probe in self.probes]

    @property
    def slowest(self) -> float:
        """Of those that serve, seconds."""
        return max((probe.elapsed for probe in self.probes if probe.serves), default=0.0)
