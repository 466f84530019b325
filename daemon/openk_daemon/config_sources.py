"""Where the configuration comes from: one file, the folder conf.d beside it, a few variables. Later ones win.

    /etc/openk/openkd.toml  ─▶  /etc/openk/conf.d/*.toml, by name  ─▶  OPENKD_* of the environment

Tables are merged key by key; any other value replaces the one before it.  For each key it is kept which place set it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final, cast

from openk_daemon.config_values import ConfigError

Key = tuple[str, ...]
INCLUDE: Final = "conf.d"
INCLUDED_MOST: Final = 256
PREFIX: Final = "OPENKD_"
VARIABLES: Final[Mapping[str, Key]] = {
    "OPENKD_STATE": ("state",),
    "OPENKD_POLICIES": ("policies",),
    "OPENKD_SOCKET": ("socket", "path"),
    "OPENKD_LOG_LEVEL": ("log", "level"),
    "OPENKD_LOG_FORMAT": ("log", "format"),
    "OPENKD_METRICS_SOCKET": ("metrics", "socket"),
}
"""All that the environment can say: what a container or a test must move, and how much is told."""
_FILE_MOST: Final = 1 << 20
_TABLE: Final = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(#.*)?$")
_KEY: Final = re.compile(
    r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)


@dataclass(slots=True)
class Gathered:
    """All sources as one document. `places`: by key, "FILE:LINE", "FILE" or "environment VARIABLE"."""

    values: dict[str, object] = field(default_factory=dict[str, object])
    places: dict[Key, str] = field(default_factory=dict[Key, str])
    mistakes: list[str] = field(default_factory=list[str])

    def place(self, key: Key) -> str | None:
        """The place of the key, or of the table it is in."""
        return next((self.places[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self.places), None)

    def add(self, values: Mapping[str, object], place: str, lines: Mapping[Key, int], at: Key = ()) -> None:
        """Lay `values` over what is there."""
        target = self._table(at)
        for name, value in values.items():
            key = (*at, name)
            line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), None)
            where = f"{place}:{line}" if line else place
            if not isinstance(value, dict):
                self._forget(key)
                self.places[key] = where
                target[name] = value
                continue
            if not isinstance(target.get(name), dict):
                self._forget(key)
                target[name] = {}
            self.places.setdefault(key, where)
            self.add(cast("dict[str, object]", value), place, lines, key)

    def _forget(self, key: Key) -> None:
        for known in [known for known in self.places if known[: len(key)] == key]:
            del self.places[known]

    def _table(self, at: Key) -> dict[str, object]:
        table = self.values
        for name in at:
            table = cast("dict[str, object]", table[name])
        return table


def gather(path: Path, environment: Mapping[str, str]) -> Gathered:
    """The file, what is included, and the variables; what cannot be read is among the mistakes."""
    found = Gathered()
    _read(path, found)
    include(path.with_name(INCLUDE), found)
    override(environment, found)
    return found


def include(folder: Path, found: Gathered) -> None:
    """Add each `*.toml` in the folder, in the order of their names. No folder: nothing. Hidden files do not count."""
    try:
        if not folder.is_dir():
            return
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".toml" and not path.name.startswith("."))
    except OSError as error:
        found.mistakes.append(f"{folder}: {error.strerror}: openkd must be able to list this folder")
        return
    if len(paths) > INCLUDED_MOST:
        found.mistakes.append(f"{folder}: {len(paths)} files are more than {INCLUDED_MOST}")
        return
    for path in paths:
        _read(path, found)


def override(environment: Mapping[str, str], found: Gathered) -> None:
    for name, value in environment.items():
        if not name.startswith(PREFIX):
            continue
        key = VARIABLES.get(name)
        if key is None:
            near = get_close_matches(name, VARIABLES, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(VARIABLES)}"
            found.mistakes.append(f"environment: {name}: is not a variable of openkd: {hint}")
            continue
        nested: object = value
        for part in reversed(key[1:]):
            nested = {part: nested}
        found.add({key[0]: nested}, f"environment {name}", {})


def _read(path: Path, found: Gathered) -> None:
    try:
        text = _text(path)
        found.add(tomllib.loads(text), str(path), lines_of(text))
    except ConfigError as error:
        found.mistakes += error.mistakes
    except (ValueError, RecursionError) as error:  # ValueError: TOMLDecodeError, and a number of thousands of digits
        found.mistakes.append(f"{path}: not TOML: {error}")


def _text(path: Path) -> str:
    """Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MOST + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: name a readable file with --config"]) from error
    if len(data) > _FILE_MOST:
        raise ConfigError([f"{path}: larger than {_FILE_MOST} bytes: this is no configuration of openkd"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: byte {error.start} is not UTF-8: TOML files are UTF-8 text"]) from error


def lines_of(text: str) -> dict[Key, int]:
    """Key path to the line (from 1) where it is set. A good guess that never fails: inside multi-line strings it
    may find keys that are none, and only messages use it."""
    found: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _TABLE.match(line)
        key = _KEY.match(line)
        if header:
            table = _split(header[1])
            found.setdefault(table, number)
        elif key:
            found.setdefault((*table, *_split(key[1])), number)
    return found


def _split(dotted: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
