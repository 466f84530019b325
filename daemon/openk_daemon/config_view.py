"""The configuration as a list of keys: what is in force, where each value came from, what a reload changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_type_hints

import msgspec
from msgspec import inspect

from openk_daemon.config_values import Config

Shown = None | bool | int | float | str | list[int | str]
DEFAULT: Final = "default"
_NAMED: Final = frozenset({"rate", "rotation"})
"""Tables of tables that a reload replaces as a whole."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`live`: a reload changes it in the running daemon; otherwise the next start does."""

    key: str
    value: Shown
    live: bool


@dataclass(frozen=True, slots=True)
class Change:
    """`running` and `fresh` are None where the key is not there."""

    key: str
    running: Shown
    fresh: Shown
    live: bool


def effective(config: Config) -> list[Setting]:
    """Every key with its value. No secret is among them: none can be configured."""
    return list(_walk((), config, inherited=False))


def origin(key: str, origins: Mapping[str, str]) -> str:
    """Where the value of a key was set."""
    return origins.get(key, DEFAULT)


def changes(running: Config, fresh: Config) -> list[Change]:
    """What differs, in the order of the keys."""
    old = {setting.key: setting for setting in effective(running)}
    new = {setting.key: setting for setting in effective(fresh)}
    found: list[Change] = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        was, will = before.value if before else None, after.value if after else None
        if before is None or after is None or was != will:
            either = before or after
            found.append(Change(key, was, will, either is not None and either.live))
    return found


def take_live(running: Config, fresh: Config) -> Config:
    """`running`, with what a reload may change taken from `fresh`."""
    return cast("Config", _merged(running, fresh))


def _merged(running: msgspec.Struct, fresh: msgspec.Struct) -> msgspec.Struct:
    taken: dict[str, object] = {}
    for name, type_ in _hints(type(running)).items():
        value = getattr(running, name)
        if isinstance(value, msgspec.Struct):
            taken[name] = _merged(value, getattr(fresh, name))
        elif name in _NAMED or _live(type_):
            taken[name] = getattr(fresh, name)
    return msgspec.structs.replace(running, **taken)


def _walk(at: tuple[str, ...], table: msgspec.Struct, *, inherited: bool) -> Iterator[Setting]:
    for name, type_ in _hints(type(table)).items():
        value: object = getattr(table, name)
        key = (*at, name)
        if isinstance(value, msgspec.Struct):
            yield from _walk(key, value, inherited=inherited)
        elif isinstance(value, dict):
            for inner, entry in cast("dict[str, msgspec.Struct]", value).items():
                yield from _walk((*key, inner), entry, inherited=name in _NAMED)
        else:
            yield Setting(".".join(key), _plain(value), inherited or _live(type_))


def _plain(value: object) -> Shown:
    if isinstance(value, tuple):
        return [part if isinstance(part, int) else str(part) for part in cast("tuple[object, ...]", value)]
    if isinstance(value, Path):
        return str(value)
    return cast("Shown", value)


def _live(type_: object) -> bool:
    described = inspect.type_info(type_)
    if not isinstance(described, inspect.Metadata):
        return False
    extra = cast("Mapping[str, object]", described.extra or {})  # pyright: ignore[reportUnknownMemberType]  # msgspec: dict
    return bool(extra.get("live"))


def _hints(type_: type[msgspec.Struct]) -> dict[str, object]:
    return get_type_hints(type_, include_extras=True)
