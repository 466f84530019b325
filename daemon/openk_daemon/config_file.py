"""Read a configuration file strictly: every mistake at once, each with file, line, key and nearest match."""

from __future__ import annotations

import difflib
import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast, get_type_hints

import msgspec

from openk_daemon.config_values import SOCKET_PATH_MOST, Config, ConfigError, Hsm, decode

_FILE_MOST: Final = 1 << 20
_TABLE: Final = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(#.*)?$")
_KEY: Final = re.compile(
    r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def load(path: Path) -> Config:
    """The configuration in a TOML file. Raises ConfigError with every mistake in it."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MOST + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: name a readable file with --config"]) from error
    if len(data) > _FILE_MOST:
        raise ConfigError([f"{path}: larger than {_FILE_MOST} bytes: this is no configuration of openkd"])
    try:
        text = data.decode("utf-8")
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: byte {error.start} is not UTF-8: TOML files are UTF-8 text"]) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from error
    return Reading(path, text).config(values)


class Reading:
    """One pass over one file, which gathers mistakes."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = lines_of(text)
        self._mistakes: list[str] = []

    def config(self, values: Mapping[str, object]) -> Config:
        """The checked configuration. Raises ConfigError with all that was found."""
        top = dict(values)
        tables = {name: type_ for name, type_ in _fields(Config).items() if _is_table(type_)}
        hsm = self._hsms(top.pop("hsm", {}))
        chosen: dict[str, object] = {"hsm": hsm}
        for name, type_ in tables.items():
            if name in top:
                chosen[name] = self._table((name,), top.pop(name), cast("type[msgspec.Struct]", type_))
        if isinstance(top.get("administrators"), list):
            top["administrators"] = self._users(cast("list[object]", top["administrators"]))
        scalars = {name: type_ for name, type_ in _fields(Config).items() if name not in tables and name != "hsm"}
        del scalars["development"]  # `openkd --dev` only
        chosen.update(self._values((), top, scalars, (*tables, "hsm")))
        if not self._mistakes:
            config = Config(**chosen)  # type: ignore[arg-type]  # each value was checked against its field
            self._check(config)
            if not self._mistakes:
                return config
        raise ConfigError(self._mistakes)

    def _hsms(self, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            self._mistake(("hsm",), "must be tables: [hsm.NAME]")
            return {}
        found: dict[str, object] = {}
        for name, table in cast("dict[str, object]", value).items():
            if not _NAME.fullmatch(name):
                self._mistake(("hsm", name), "an HSM's name is 1 to 32 of a-z, 0-9 and -")
            found[name] = self._table(("hsm", name), table, Hsm)
            if isinstance(table, dict) and not {"sockets", "group"} & table.keys():
                self._mistake(("hsm", name), "sockets is missing")
        if not found:
            self._mistake(("hsm",), "no HSM is named: add a table [hsm.NAME] with `sockets`")
        return found

    def _table(self, at: tuple[str, ...], value: object, type_: type[msgspec.Struct]) -> msgspec.Struct | None:
        if not isinstance(value, dict):
            self._mistake(at, f"must be a table: [{'.'.join(at)}]")
            return None
        found = self._values(at, cast("dict[str, object]", value), _fields(type_))
        for field in msgspec.structs.fields(type_):
            if field.required and field.name not in cast("dict[str, object]", value):
                self._mistake(at, f"{field.name} is missing")
        return None if self._mistakes else type_(**found)

    def _values(
        self,
        at: tuple[str, ...],
        values: Mapping[str, object],
        types: Mapping[str, object],
        tables: tuple[str, ...] = (),
    ) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in values.items():
            if name not in types:
                known = [*types, *tables]
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {'.'.join((*at, near[0]))}?" if near else f"known here: {', '.join(known)}"
                self._mistake((*at, name), f"is not a key of openkd: {hint}")
                continue
            try:
                found[name] = decode(value, types[name])
            except msgspec.ValidationError as error:
                self._mistake((*at, name), str(error).removesuffix(" - at `$`"))
        return found

    def _users(self, users: list[object]) -> list[object]:
        """User names replaced by their uids; what is neither is left for the type check."""
        uids: list[object] = []
        for user in users:
            try:
                uids.append(pwd.getpwnam(user).pw_uid if isinstance(user, str) else user)
            except (KeyError, ValueError):
                self._mistake(("administrators",), f"no user {user!r} on this host: correct the name, or write the uid")
        return uids

    def _check(self, config: Config) -> None:
        """Rules between fields."""
        limits = config.limits
        if limits.locked_memory_per_uid_bytes > limits.locked_memory_bytes:
            self._mistake(("limits", "locked_memory_per_uid_bytes"), "must not exceed limits.locked_memory_bytes")
        if limits.message_bytes > limits.locked_memory_per_uid_bytes:
            what = "must not exceed limits.locked_memory_per_uid_bytes: such a message could never arrive"
            self._mistake(("limits", "message_bytes"), what)
        if any(not 0 <= uid < 0xFFFFFFFF for uid in config.administrators):
            self._mistake(("administrators",), "a uid is 0 to 4294967294")
        if not config.administrators:
            self._mistake(("administrators",), "name at least one: nobody could reload policies")
        places: dict[Path, str] = {}
        for key, path in _sockets(config):
            if len(os.fsencode(path)) > SOCKET_PATH_MOST:
                self._mistake(key, f"{path} is too long for a socket ({SOCKET_PATH_MOST} bytes at most)")
            if path in places:
                self._mistake(key, f"{path} is also {places[path]}: each socket has a path of its own")
            places[path] = ".".join(key)
        self._check_groups(config)
        for name, hsm in config.hsm.items():
            if "pin-value" in hsm.uri or "pin-source" in hsm.uri:
                self._mistake(
                    ("hsm", name, "uri"), "holds a PIN: that is the worker's credential and never belongs here"
                )

    def _check_groups(self, config: Config) -> None:
        places: dict[str, str] = {}
        for name, hsm in config.hsm.items():
            at = ("hsm", name, "group")
            if hsm.sockets and hsm.group:
                self._mistake(at, "a group has no sockets of its own: its members have. Keep one of the two")
            elif hsm.group and hsm != Hsm(group=hsm.group, uri=hsm.uri):
                self._mistake(at, "a group has nothing but its members: write the rest into their tables")
            for member in hsm.group:
                what = _unfit(config, name, member)
                if what:
                    self._mistake(at, what)
                elif member in places:
                    self._mistake(at, f"{member} is in {places[member]} already: an HSM is in one group, once")
                places[member] = ".".join(at)

    def _mistake(self, key: tuple[str, ...], what: str) -> None:
        line = next((self._lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self._lines), None)
        place = f"{self._path}:{line}" if line else str(self._path)
        self._mistakes.append(f"{place}: {'.'.join(key)}: {what}")


def _unfit(config: Config, group: str, member: str) -> str:
    """Why that HSM cannot be a member of that group; empty when it can."""
    found = config.hsm.get(member)
    if found is None:
        others = [name for name, hsm in config.hsm.items() if name != group and not hsm.group]
        near = difflib.get_close_matches(member, others, 1)
        hint = f"did you mean {near[0]}?" if near else f"add a table [hsm.{member}] with `sockets`"
        return f"no HSM is named {member!r}: {hint}"
    return f"{member} is a group itself: name HSMs that have sockets" if found.group else ""


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Key path to the line (from 1) where it is set. A good guess that never fails: inside multi-line strings it
    may find keys that are none, and only error messages use it."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _TABLE.match(line)
        key = _KEY.match(line)
        if header:
            table = _split(header[1])
            found.setdefault(table, number)
        elif key:
            found.setdefault((*table, *_split(key[1])), number)
    return found


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _fields(type_: type[msgspec.Struct]) -> dict[str, object]:
    return get_type_hints(type_, include_extras=True)


def _is_table(type_: object) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _sockets(config: Config) -> list[tuple[tuple[str, ...], Path]]:
    found: list[tuple[tuple[str, ...], Path]] = [(("socket", "path"), config.socket.path)]
    found += [(("hsm", name, "sockets"), path) for name, hsm in config.hsm.items() for path in hsm.sockets]
    if config.metrics.socket:
        found.append((("metrics", "socket"), config.metrics.socket))
    return found
