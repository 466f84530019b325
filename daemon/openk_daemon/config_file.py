"""Read the configuration strictly: every mistake at once, each with file, line, key and nearest match."""

from __future__ import annotations

import difflib
import os
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast, get_type_hints

import msgspec

from openk.wire.methods import METHODS
from openk_daemon.config_aging import Rotation, mistakes_of, unknown_algorithms
from openk_daemon.config_running import Rate
from openk_daemon.config_sources import Gathered, gather
from openk_daemon.config_values import SOCKET_PATH_MOST, Config, ConfigError, Hsm, decode
from openk_daemon.observe.alerts import RULES
from openk_daemon.thresholds import alert_rule

KINDS: Final = tuple(dict.fromkeys(name.partition(".")[0] + ".*" for name in METHODS))
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_NAMED: Final[Mapping[str, tuple[type[msgspec.Struct], str]]] = {
    "rate": (Rate, "a limit"),
    "rotation": (Rotation, "a rule"),
}
"""Tables of tables with names of the operator's, and what one is called."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that holds, and where it came from. `origins`: by dotted key, of what is not the default.
    `again` reads the same sources anew; it raises ConfigError."""

    config: Config
    origins: Mapping[str, str]
    again: Callable[[], Loaded]
    folders: tuple[Path, ...] = ()
    """What `again` reads, besides the environment: a confined process must be let read it."""


def load(path: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Config:
    """The configuration in a TOML file, in conf.d beside it and in `environment` (the few variables of
    config_sources.VARIABLES). Raises ConfigError with every mistake in them."""
    return read(path, environment).config


def read(path: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Loaded:
    """`load`, with the origin of each value. Raises ConfigError."""
    found = gather(path, environment)
    config = Reading(str(path), found).config()
    folder = Path(os.path.abspath(path)).parent
    return Loaded(config, origins_of(found), lambda: read(path, environment), (folder,))


def origins_of(found: Gathered) -> dict[str, str]:
    return {".".join(key): place for key, place in found.places.items()}


class Reading:
    """One pass over what was gathered, which collects mistakes."""

    def __init__(self, name: str, found: Gathered) -> None:
        """`name`: of the place where a mistake lies that no key names."""
        self._name = name
        self._found = found
        self._mistakes: list[str] = list(found.mistakes)

    def config(self) -> Config:
        """The checked configuration. Raises ConfigError with all that was found."""
        if self._found.mistakes:
            raise ConfigError(self._mistakes)  # half a document would give mistakes that are none
        top = dict(self._found.values)
        tables = {name: type_ for name, type_ in _fields(Config).items() if _is_table(type_)}
        chosen: dict[str, object] = {"hsm": self._hsms(top.pop("hsm", {}))}
        for name in _NAMED:
            chosen[name] = self._named(name, top.pop(name, {}))
        for name, type_ in tables.items():
            if name in top:
                chosen[name] = self._table((name,), top.pop(name), cast("type[msgspec.Struct]", type_))
        if isinstance(top.get("administrators"), list):
            top["administrators"] = self._users(("administrators",), cast("list[object]", top["administrators"]))
        scalars = {name: type_ for name, type_ in _fields(Config).items() if name not in (*tables, "hsm", *_NAMED)}
        del scalars["development"]  # `openkd --dev` only
        chosen.update(self._values((), top, scalars, (*tables, "hsm", *_NAMED)))
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

    def _named(self, kind: str, value: object) -> dict[str, object]:
        type_, called = _NAMED[kind]
        if not isinstance(value, dict):
            self._mistake((kind,), f"must be tables: [{kind}.NAME]")
            return {}
        found: dict[str, object] = {}
        for name, table in cast("dict[str, object]", value).items():
            if not _NAME.fullmatch(name):
                self._mistake((kind, name), f"{called}'s name is 1 to 32 of a-z, 0-9 and -")
            given = table
            if isinstance(table, dict):
                fields = cast("dict[str, object]", table)
                if isinstance(fields.get("users"), list):
                    given = fields | {
                        "users": self._users((kind, name, "users"), cast("list[object]", fields["users"]))
                    }
            found[name] = self._table((kind, name), given, type_)
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
            if _is_table(types[name]):
                table = self._table((*at, name), value, cast("type[msgspec.Struct]", types[name]))
                if table is not None:
                    found[name] = table
                continue
            try:
                found[name] = decode(value, types[name])
            except msgspec.ValidationError as error:
                self._mistake((*at, name), str(error).removesuffix(" - at `$`"))
        return found

    def _users(self, at: tuple[str, ...], users: list[object]) -> list[object]:
        """User names replaced by their uids; what is neither is left for the type check."""
        uids: list[object] = []
        for user in users:
            try:
                uids.append(pwd.getpwnam(user).pw_uid if isinstance(user, str) else user)
            except (KeyError, ValueError):
                self._mistake(at, f"no user {user!r} on this host: correct the name, or write the uid")
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
        self._check_rates(config)
        self._check_alerts(config)
        self._check_keys(config)
        self._check_backup(config)
        for name, hsm in config.hsm.items():
            if "pin-value" in hsm.uri or "pin-source" in hsm.uri:
                self._mistake(
                    ("hsm", name, "uri"), "holds a PIN: that is the worker's credential and never belongs here"
                )

    def _check_keys(self, config: Config) -> None:
        """What keys may be, and when they are due."""
        for what in unknown_algorithms(config.crypto.algorithms):
            self._mistake(("crypto", "algorithms"), what)
        for name, rule in config.rotation.items():
            for key, what in mistakes_of(rule, config.crypto):
                self._mistake(("rotation", name, *key), what)

    def _check_rates(self, config: Config) -> None:
        for name, rate in config.rate.items():
            for method in rate.methods:
                if not methods_of(method):
                    near = difflib.get_close_matches(method, [*METHODS, *KINDS], 1)
                    hint = f"did you mean {near[0]}?" if near else "see `openk methods`"
                    self._mistake(("rate", name, "methods"), f"there is no method {method!r}: {hint}")

    def _check_alerts(self, config: Config) -> None:
        for rule in RULES:
            try:
                alert_rule(rule, config)
            except ValueError as error:
                self._mistake(("alerts", rule.name), str(error))

    def _check_backup(self, config: Config) -> None:
        backup, state = config.backup, config.state
        if backup.folder is not None and (backup.folder == state or backup.folder.is_relative_to(state / "audit")):
            what = f"{backup.folder} is where the state itself is: name a folder of its own, on another disk"
            self._mistake(("backup", "folder"), what)
        if backup.old_after < backup.every_seconds:
            what = "must not be less than backup.every_seconds: each backup would be old before the next"
            self._mistake(("backup", "warn_seconds"), what)

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
        place = self._found.place(key) or self._name
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


def methods_of(pattern: str) -> frozenset[str]:
    """The methods that "key.sign" or "key.*" means; none where it means nothing."""
    if pattern.endswith(".*"):
        return frozenset(name for name in METHODS if name.startswith(pattern[:-1]))
    return frozenset({pattern} & METHODS.keys())


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
