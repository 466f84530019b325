"""A worker's look at who traces it, ten times a second and before each login: a tracer reads the PIN and whatever the
vendor's module holds.

Only root can trace a process that is not dumpable, and root can hide; what this notices is a debugger left attached,
an administrator's strace, or an intruder who does not care.
"""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import Final

from openk_hsm import journal
from openk_hsm.errors import HsmError
from openk_hsm.seal import Seal
from openk_memory.tracers import Tracers

PERIOD: Final = 0.1
"""Seconds between two looks."""


class Reaction(StrEnum):
    LOG = "log"
    SEAL = "seal"
    EXIT = "exit"


class Traced(HsmError):
    """Somebody traces this process, and it was told to end then."""


class Watch:
    """`look` at every turn of a loop that turns at least once a `PERIOD`."""

    def __init__(self, reaction: Reaction, seal: Seal, tracers: Tracers) -> None:
        self._reaction = reaction
        self._seal = seal
        self._tracers = tracers
        self._due = 0.0

    def look_before_login(self) -> None:
        """Whoever traces it now would see the PIN, whether he has been told of before or not. Raises what `look`
        raises."""
        self._tracers.forget()
        self._due = 0.0
        self.look()

    def look(self) -> None:
        """Raises Sealed or Traced where that is the reaction; a tracer that stays is told of once."""
        now = monotonic()
        if now < self._due:
            return
        self._due = now + PERIOD
        sight = self._tracers.look()
        if sight.gone:
            journal.log("warning", "the tracer has gone")
        if sight.lost:
            journal.log("error", "more processes traced this worker than the kernel could tell of")
        for found in sight.tracers:
            self._react(found)

    def _react(self, found: int) -> None:
        """Raises Sealed or Traced where that is the reaction."""
        journal.log("error", "a process traces this worker", tracer=found, reaction=self._reaction.value)
        if self._reaction is Reaction.SEAL:
            raise self._seal.set(f"process {found} traced the worker")
        if self._reaction is Reaction.EXIT:
            raise Traced(f"process {found} traces this worker")
