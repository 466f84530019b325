"""What the process stands on before it confines itself: its user, its limits, its kind of locked memory.

Each is checked before anything is opened, and told with what to change: a limit that is too low would else show as
refused requests under load, weeks later.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from openk_daemon.config import Config, ConfigError
from openk_daemon.observe.log import Log
from openk_daemon.store.database import load_checksums
from openk_memory.limits import allow_locking, limit_of, set_limit
from openk_memory.region import Kind, best_kind, why_not_secret

SPARE: Final = 256 << 10
"""Bytes of locked memory besides pool and hand-off regions: the self-test, guard rounding."""
_LATE: Final = (("psutil", "_psutil_linux*.so"),)
"""Packages and their libraries."""
_ROOT: Final = 0
_ROOT_REFUSED: Final = (
    'openkd runs as root, and no service user is named: add `user = "openkd"` to the configuration, or start it as '
    "that user (User= of the unit, or setpriv --reuid=openkd --regid=openkd --init-groups). Root on purpose is "
    '`user = "root"`.'
)


def take_footing(config: Config, log: Log) -> None:
    """Before the first thread and the first secret. Raises ConfigError, LockLimitTooLow."""
    _raise_descriptors()
    _grant_locked_memory(config, log)
    _become_service_user(config, log)
    _tell_kind(log)


def locked_bytes(config: Config) -> int:
    """The most that openkd ever locks: the pool, a hand-off region for each worker, and a little."""
    handed = sum(hsm.handoff_bytes * len(hsm.sockets) for hsm in config.hsm.values())
    return config.limits.locked_memory_bytes + handed + SPARE


def _raise_descriptors() -> None:
    """As many descriptors as are allowed: the usual soft limit, 1024, is meant for programs that use select(2)."""
    _, hard = limit_of(resource.RLIMIT_NOFILE)
    set_limit(resource.RLIMIT_NOFILE, hard, hard)


def _grant_locked_memory(config: Config, log: Log) -> None:
    """RLIMIT_MEMLOCK for everything that may be locked later. Below it --dev starts all the same and says what may
    fail."""
    fault = allow_locking(locked_bytes(config))
    if fault is None:
        return
    if not config.development:
        raise fault
    log.warning("memory.limit", None, needed=fault.needed, limit=fault.limit, text=str(fault))


def _become_service_user(config: Config, log: Log) -> None:
    """Root is refused, unless the configuration names whom to become; --dev runs as whoever starts it."""
    if os.geteuid() != _ROOT:
        return
    if config.development:
        log.warning(
            "user.root", None, text="openkd --dev runs as root: locked memory keeps nothing from root's programs"
        )
        return
    if not config.user:
        raise ConfigError([_ROOT_REFUSED])
    try:
        entry = pwd.getpwnam(config.user)
    except KeyError:
        raise ConfigError(
            [f"user: there is no user {config.user!r}: create it (systemd-sysusers) or name another"]
        ) from None
    if entry.pw_uid == _ROOT:
        log.warning("user.root", None, text="openkd runs as root, as configured: any flaw in it is root's")
        return
    os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    log.info("user", name=entry.pw_name, group=grp.getgrgid(entry.pw_gid).gr_name)


def map_late_libraries() -> None:
    """What is imported late because it is seldom needed and slow (metrics) brings code with it, which cannot be loaded
    once the process is confined: its code is mapped now, which takes a millisecond, and imported when it is needed."""
    load_checksums()
    for package, pattern in _LATE:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for library in sorted(Path(folder).glob(pattern)):
                ctypes.CDLL(str(library))


def _tell_kind(log: Log) -> None:
    """The second best kind of locked memory is good enough to start with, and worth a line."""
    if best_kind() is not Kind.SECRET:
        log.warning("memory.kind", None, kind=str(best_kind()), text=why_not_secret())
