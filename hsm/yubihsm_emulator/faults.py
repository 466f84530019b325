"""The fault plan: which commands go wrong, how, and when."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from yubihsm_emulator.codes import Command
from yubihsm_emulator.errors import ErrorCode


class Action(StrEnum):
    """What happens to a command."""

    DROP_REQUEST = "drop-request"
    """The connection ends; the device never saw the command."""
    DROP_REPLY = "drop-reply"
    """The connection ends; the device executed the command."""
    DELAY = "delay"
    """The device takes `seconds` longer; everybody waits."""
    CORRUPT_REPLY = "corrupt-reply"
    """One bit of the reply's frame is wrong."""
    LOSE_SESSIONS = "lose-sessions"
    """The device forgets all sessions; a command in one gets INVALID SESSION."""
    REBOOT = "reboot"
    """Power goes before the command and is back after `seconds`."""
    UNREACHABLE = "unreachable"
    """The connector sees no device for `seconds`, sessions last."""
    LOG_FULL = "log-full"
    """LOG FULL for whatever needs room in the log."""
    STORAGE_FULL = "storage-full"
    """STORAGE FAILED for whatever creates an object."""
    ERROR = "error"
    """The error `code` instead of the command."""


_ALWAYS_IN_LOG: Final = {
    Command.ECHO,
    Command.DEVICE_INFO,
    Command.GET_DEVICE_PUBLIC_KEY,
    Command.GET_LOG_ENTRIES,
    Command.SET_LOG_INDEX,
    Command.CREATE_SESSION,
    Command.AUTHENTICATE_SESSION,
    Command.CLOSE_SESSION,
}

_CREATING: Final = frozenset(one for one in Command if one.name.startswith(("PUT_", "GENERATE_", "IMPORT_")))

_OF_ACTION: Final[Mapping[Action, frozenset[int]]] = {
    Action.LOG_FULL: frozenset(set(Command) - _ALWAYS_IN_LOG),
    Action.STORAGE_FULL: _CREATING,
}

TIMED: Final = frozenset({Action.DELAY, Action.REBOOT, Action.UNREACHABLE})
"""Actions that have `seconds`."""


@dataclass(slots=True)
class Fault:
    """One line of a plan, and how often it has been seen and done.

    commands  which ones (empty: any that the action concerns)
    after     so many of them pass first
    every     then each n-th is hit
    times     so often in all; 0: without end
    chance    each of those only with this probability
    """

    do: Action
    commands: frozenset[int] = frozenset()
    after: int = 0
    every: int = 1
    times: int = 1
    chance: float = 1.0
    seconds: float = 0.0
    code: ErrorCode = ErrorCode.COMMAND_UNEXECUTED
    seen: int = 0
    done: int = 0

    def due(self, command: int, dice: random.Random) -> bool:
        """Whether this command is hit; counts it."""
        if command not in (self.commands or _OF_ACTION.get(self.do) or {command}):
            return False
        self.seen += 1
        beyond = self.seen - self.after
        if beyond <= 0 or beyond % self.every or (self.times and self.done >= self.times):
            return False
        if self.chance < 1 and dice.random() >= self.chance:
            return False
        self.done += 1
        return True

    def describe(self) -> dict[str, object]:
        """As written in a plan, with `seen` and `done`."""
        told: dict[str, object] = {"do": self.do.value}
        if self.commands:
            told["commands"] = sorted(Command(one).name for one in self.commands)
        told |= {"after": self.after, "every": self.every, "times": self.times, "chance": self.chance}
        if self.do in TIMED:
            told["seconds"] = self.seconds
        if self.do is Action.ERROR:
            told["code"] = self.code.name
        return told | {"seen": self.seen, "done": self.done}


class Plan:
    """Faults in order; each command meets all of them. `seed` makes chances repeat."""

    def __init__(self, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        self.faults = faults
        self.seed = seed
        self._dice = random.Random(self.seed)  # noqa: S311 - chances of a test, to be repeated

    def meet(self, command: int) -> list[Fault]:
        """The faults that hit this command."""
        return [fault for fault in self.faults if fault.due(command, self._dice)]

    def describe(self) -> str:
        """The plan as JSON."""
        return json.dumps({"seed": self.seed, "faults": [fault.describe() for fault in self.faults]}, indent=2) + "\n"
