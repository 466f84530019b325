"""The fault plan: which commands go wrong, how, and when. Read from JSON or TOML, by option or over HTTP."""

import json
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

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

_FIELDS: Final = {"do", "commands", "after", "every", "times", "chance", "seconds", "code"}
_TIMED: Final = {Action.DELAY, Action.REBOOT, Action.UNREACHABLE}


class PlanError(ValueError):
    """The plan cannot be used; the text says which field of which fault."""


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
        if self.do in _TIMED:
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


def read_json(text: str | bytes) -> Plan:
    """A plan from JSON; `PlanError`."""
    try:
        return read(json.loads(text))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"this is no JSON: {error}") from error


def read_toml(text: str) -> Plan:
    """A plan from TOML; `PlanError`."""
    try:
        return read(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"this is no TOML: {error}") from error


def read(tree: object) -> Plan:
    """A plan from what a JSON or TOML reader made of it; `PlanError`."""
    top = _table(tree, "the plan", {"seed", "faults"})
    listed = top.get("faults", [])
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise PlanError("`faults` must be a list")
    faults = [_fault(one, f"fault {number}") for number, one in enumerate(cast("Sequence[object]", listed), 1)]
    return Plan(faults, _whole(top, "seed", 0, "the plan"))


def _fault(tree: object, where: str) -> Fault:
    told = _table(tree, where, _FIELDS)
    try:
        action = Action(str(told.get("do")))
    except ValueError:
        raise PlanError(f"{where}: `do` must be one of {', '.join(Action)}") from None
    if "seconds" in told and action not in _TIMED:
        raise PlanError(f"{where}: `seconds` means nothing to {action}")
    if ("code" in told) != (action is Action.ERROR):
        raise PlanError(f"{where}: `code` belongs to `do: error`, and only there")
    chance = _real(told, "chance", 1.0, where)
    if chance > 1:
        raise PlanError(f"{where}: `chance` must be between 0 and 1")
    return Fault(
        action,
        _commands(told.get("commands", []), where),
        _whole(told, "after", 0, where),
        _whole(told, "every", 1, where, least=1),
        _whole(told, "times", 1, where),
        chance,
        _real(told, "seconds", 0.0, where),
        _code(told["code"], where) if "code" in told else ErrorCode.COMMAND_UNEXECUTED,
    )


def _commands(names: object, where: str) -> frozenset[int]:
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise PlanError(f"{where}: `commands` must be a list of names such as SIGN_HMAC")
    listed = [str(name) for name in cast("Sequence[object]", names)]
    unknown = [name for name in listed if name not in Command.__members__]
    if unknown:
        raise PlanError(f"{where}: there is no command {unknown[0]}; the names are those of `--list-commands`")
    return frozenset(int(Command[name]) for name in listed)


def _code(name: object, where: str) -> ErrorCode:
    if name not in ErrorCode.__members__:
        raise PlanError(f"{where}: `code` must be one of {', '.join(ErrorCode.__members__)}")
    return ErrorCode[str(name)]


def _table(tree: object, where: str, known: set[str]) -> Mapping[str, object]:
    if not isinstance(tree, Mapping):
        raise PlanError(f"{where} must be a table")
    table = cast("Mapping[str, object]", tree)
    strange = sorted(set(table) - known)
    if strange:
        raise PlanError(f"{where}: `{strange[0]}` is unknown; known are {', '.join(sorted(known))}")
    return table


def _whole(table: Mapping[str, object], name: str, default: int, where: str, least: int = 0) -> int:
    value = table.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise PlanError(f"{where}: `{name}` must be a whole number, at least {least}")
    return value


def _real(table: Mapping[str, object], name: str, default: float, where: str) -> float:
    value = table.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise PlanError(f"{where}: `{name}` must be a number, at least 0")
    return float(value)
