"""Everything that needs the whole file system, before the event loop runs and before the process confines itself."""

from __future__ import annotations

from dataclasses import dataclass
from grp import getgrnam
from pathlib import Path
from socket import socket
from typing import Final

from openk_daemon.backup.maker import NAME as BACKUPS
from openk_daemon.config import Config, ConfigError, Loaded
from openk_daemon.footing import map_late_libraries, take_footing
from openk_daemon.observe.log import Log
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.policy.engine import Engine
from openk_daemon.serve import listen, listen_tcp
from openk_daemon.store.folder import FolderRefused, check_folder
from openk_memory import selftest
from openk_memory.hardening import Measure, attempt, harden_daemon
from openk_memory.landlock import Confinement, runtime_paths
from openk_memory.pool import Pool
from openk_memory.tracers import Tracers

_SOCKET_NAME: Final = "openkd"  # FileDescriptorName= in systemd/openkd.socket


@dataclass(frozen=True, slots=True)
class Ground:
    """What is there before trio runs, and before the process is confined."""

    config: Config
    loaded: Loaded
    log: Log
    manager: ServiceManager
    pool: Pool
    engine: Engine
    listeners: tuple[socket, ...]
    inherited: bool
    scraped: tuple[socket, ...]
    """Where metrics and health are served besides their methods."""
    tracers: Tracers


def prepare(loaded: Loaded, log: Log, manager: ServiceManager) -> Ground:
    """The ground, then the confinement. One thread must run. Raises ConfigError, Refusal (policies), OSError,
    LockedMemoryError; each says what to do."""
    config = loaded.config
    take_footing(config, log)
    selftest.run()
    map_late_libraries()
    limits = config.limits
    pool = Pool(limits.locked_memory_bytes, owner_bytes=limits.locked_memory_per_uid_bytes)
    engine = Engine(config.policies, config.administrators, decisions=limits.decisions)
    inherited = manager.sockets(_SOCKET_NAME)
    listeners = inherited or [_bind(config)]
    scraped = doors_of(config)
    lane_folders = {path.parent for hsm in config.hsm.values() for path in hsm.sockets}
    reach = Confinement(
        read=[*runtime_paths(), config.policies, *loaded.folders],
        write=[config.state, config.socket.path.parent, *lane_folders, *_backups(config)],
        scope=False,  # the service manager's socket may be an abstract one
    )
    tracers = Tracers()
    told = attempt(Measure.TRACER_EVENTS, tracers.events.subscribe)
    for step in (told, *harden_daemon(reach).steps):
        log.debug("hardening", measure=str(step.measure), state=str(step.state), detail=step.detail)
        if step.state != "applied":
            tell = log.info if step.level == "info" else log.warning
            tell("hardening.missing", measure=str(step.measure), detail=step.detail)
    return Ground(config, loaded, log, manager, pool, engine, tuple(listeners), bool(inherited), scraped, tracers)


def _backups(config: Config) -> tuple[Path, ...]:
    """The folder of backups, where there is one. Raises ConfigError where it is not fit: it could never be reached
    later."""
    folder = config.backup.folder
    if folder is None:
        return ()
    try:
        check_folder(str(folder), BACKUPS)
    except FolderRefused as error:
        raise ConfigError([f"backup.folder: {error}"]) from error
    return (folder,)


def doors_of(config: Config) -> tuple[socket, ...]:
    """The sockets of the metrics door. Raises ConfigError."""
    doors: list[socket] = []
    if config.metrics.socket is not None:
        doors.append(_listen(config.metrics.socket, config.socket.mode, None))
    if config.metrics.listen:
        try:
            doors.append(listen_tcp(config.metrics.listen))
        except OSError as error:
            raise ConfigError([f"metrics.listen: {config.metrics.listen}: {error.strerror or error}"]) from error
    return tuple(doors)


def _bind(config: Config) -> socket:
    group = None
    if config.socket.group:
        try:
            group = getgrnam(config.socket.group).gr_gid
        except KeyError:
            raise ConfigError(
                [f"socket.group: there is no group {config.socket.group!r}: create it or name another"]
            ) from None
    return _listen(config.socket.path, config.socket.mode, group)


def _listen(path: Path, mode: int, group: int | None) -> socket:
    try:
        return listen(str(path), mode, group)
    except OSError as error:
        raise ConfigError([f"the socket {path}: {error.strerror}"]) from error
