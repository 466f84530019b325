"""Fault plans as people write them: JSON (by option and over HTTP) or TOML (by option)."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Final, cast

from yubihsm_emulator.codes import Command
from yubihsm_emulator.errors import ErrorCode
from yubihsm_emulator.faults import TIMED, Action, Fault, Plan

_FIELDS: Final = {"do", "commands", "after", "every", "times", "chance", "seconds", "code"}


_LARGEST: Final = 1 << 31
"""Of numbers with a fraction: as seconds it is 68 years."""


class PlanError(ValueError):
    """The plan cannot be used; the text says which field of which fault."""


def read_json(text: str | bytes) -> Plan:
    """A plan from JSON; `PlanError`."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"this is no JSON: {error}") from error
    return read(tree)


def read_toml(text: str) -> Plan:
    """A plan from TOML; `PlanError`."""
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"this is no TOML: {error}") from error
    return read(tree)


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
    if "seconds" in told and action not in TIMED:
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
    if str(name) not in ErrorCode.__members__:
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
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise PlanError(f"{where}: `{name}` must be a number from 0 to {_LARGEST}")
    return float(value)
