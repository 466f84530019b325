"""A worker's look at who traces it, ten times a second and before each login: a tracer reads the PIN and whatever the
vendor's module holds.

Only root can trace a process that is not dumpable, and root can hide; what this notices is a debugger left attached,
an administrator's strace, or an intruder who does not care.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from time import monotonic
from typing import Final

from openk_hsm import journal
from openk_hsm.errors import HsmError
from openk_hsm.seal import Seal
from openk_memory.hardening import tracer

PERIOD: Final = 0.1
"""Seconds between two looks, of 50 microseconds: who attaches and leaves in between is not seen."""


class Reaction(StrEnum):
    LOG = "log"
    SEAL = "seal"
    EXIT = "exit"


class Traced(HsmError):
    """Somebody traces this process, and it was told to end then."""


class Watch:
    """`look` at every turn of a loop that turns at least once a `PERIOD`."""

    def __init__(self, reaction: Reaction, seal: Seal, find: Callable[[], int] = tracer) -> None:
        self._reaction = reaction
        self._seal = seal
        self._find = find
        self._due = 0.0
        self._known = 0

    def look_before_login(self) -> None:
        """Whoever traces it now would see the PIN, whether he has been told of before or not. Raises what `look`
        raises."""
        self._known = 0
        self._due = 0.0
        self.look()

    def look(self) -> None:
        """Raises Sealed or Traced where that is the reaction; a tracer that stays is told of once."""
        now = monotonic()
        if now < self._due:
            return
        self._due = now + PERIOD
        found = self._find()
        if found == self._known:
            return
        self._known = found
        if not found:
            journal.log("warning", "the tracer has gone")
            return
        journal.log("error", "a process traces this worker", tracer=found, reaction=self._reaction.value)
        if self._reaction is Reaction.SEAL:
            raise self._seal.set(f"process {found} traced the worker")
        if self._reaction is Reaction.EXIT:
            raise Traced(f"process {found} traces this worker")
