"""`openkd --dev DIR`: everything in one folder, with a copy of the shipped policies to edit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec

from openk_daemon.config_file import Loaded, Reading, origins_of
from openk_daemon.config_running import Log
from openk_daemon.config_sources import INCLUDE, Gathered, include, override
from openk_daemon.config_values import (
    MEBIBYTE,
    SOCKET_PATH_MOST,
    Config,
    ConfigError,
    Hardening,
    Hsm,
    OnTracer,
    Socket,
)
from openk_daemon.config_view import effective
from openk_daemon.policy.shipped import SCHEMA, shipped_policies

_LARGE_REGIONS: Final = 2
"""Workers with a region for the largest messages each: more of them must fit RLIMIT_MEMLOCK's usual 8 MiB too."""


def development(folder: Path, workers: int = 1, on_tracer: OnTracer = "log") -> Config:
    """Everything inside `folder`, which is made (mode 0700) when missing; the shipped policies are copied into it
    once and are the developer's to edit from then on. The administrator is whoever starts it. `workers`: HSM processes.

    Raises ConfigError when the folder cannot be made, or its sockets' paths would be too long."""
    config = _shape(folder, workers, on_tracer)
    _furnish(config.state.parent, config)
    return config


def _shape(folder: Path, workers: int, on_tracer: OnTracer) -> Config:
    folder = Path(os.path.abspath(folder))
    return Config(
        state=folder / "state",
        policies=folder / "policies",
        administrators=(os.getuid(),),
        hsm={
            "dev": Hsm(
                sockets=tuple(folder / f"hsm-{number}.sock" for number in range(workers)),
                handoff_bytes=MEBIBYTE if workers <= _LARGE_REGIONS else MEBIBYTE // 8,
            )
        },
        socket=Socket(path=folder / "openkd.sock", mode=0o600),
        log=Log(format="text"),
        hardening=Hardening(on_tracer=on_tracer),
        development=True,
    )


def read_development(folder: Path, workers: int, on_tracer: OnTracer, environment: Mapping[str, str]) -> Loaded:
    """`development`, with `conf.d` inside the folder and the variables of config_sources laid over it. Raises
    ConfigError."""
    development(folder, workers, on_tracer)
    return _laid_over(folder, workers, on_tracer, environment)


def _laid_over(folder: Path, workers: int, on_tracer: OnTracer, environment: Mapping[str, str]) -> Loaded:
    base = _shape(folder, workers, on_tracer)
    usual = {setting.key: setting.value for setting in effective(Config(hsm={"dev": Hsm()}))}
    found = Gathered()
    for setting in effective(base):
        if setting.value != usual[setting.key] and setting.key != "development":
            nested: object = setting.value
            *tables, name = setting.key.split(".")
            for part in (name, *reversed(tables)):
                nested = {part: nested}
            found.add(cast("dict[str, object]", nested), "openkd --dev", {})
    include(base.state.with_name(INCLUDE), found)
    override(environment, found)
    config = msgspec.structs.replace(Reading("openkd --dev", found).config(), development=True)
    again = partial(_laid_over, base.state.parent, workers, on_tracer, environment)
    return Loaded(config, origins_of(found), again, (base.state.parent,))


def _furnish(folder: Path, config: Config) -> None:
    """Make `folder`, its state folder and its policies, each 0700, leaving what is there. Raises ConfigError."""
    for socket in (config.socket.path, *(path for hsm in config.hsm.values() for path in hsm.sockets)):
        if len(os.fsencode(socket)) > SOCKET_PATH_MOST:
            too_long = f"{socket} is too long for a socket ({SOCKET_PATH_MOST} bytes at most): choose a shorter folder"
            raise ConfigError([too_long])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.state.mkdir(mode=0o700, exist_ok=True)
        if not config.policies.exists():
            _copy_policies(config.policies)
        _renew_schema(config.policies)
    except OSError as error:
        raise ConfigError([f"{error.filename or folder}: {error.strerror}: choose another folder for --dev"]) from error


def _renew_schema(policies: Path) -> None:
    """The schema belongs to the version of openk, and not to whoever edits the policies: after an upgrade it is
    replaced, or openkd would not start in a folder that was made before."""
    kept, current = policies / SCHEMA, (shipped_policies() / SCHEMA).read_bytes()
    if kept.exists() and kept.read_bytes() != current:
        partial = kept.with_name(f"{SCHEMA}.partial")
        partial.write_bytes(current)
        partial.chmod(0o600)
        partial.rename(kept)


def _copy_policies(target: Path) -> None:
    """The shipped set, copied beside its place and renamed: an interrupted start leaves no half of it."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    source = shipped_policies()
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix in {".cedar", ".cedarschema", ".md"}:
            copy = partial / path.relative_to(source)
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o600)
    partial.rename(target)
