"""From a cgroup to the systemd unit, as systemd itself reads it (sd-login, cg_path_get_unit). Pure.

    0::/system.slice/web.service                                          web.service
    0::/system.slice/web.service/workers/x.service                        web.service (below it is its own affair)
    0::/user.slice/user-1000.slice/session-3.scope                        session-3.scope
    0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service  user@1000.service/x.service

A user may name the units of their own manager as they like, so these keep the manager's name in front.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|socket|mount|swap)")
_SLICE: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,248}\.slice")
_MANAGER: Final = re.compile(r"user@[0-9]{1,10}\.service")
_DELETED: Final = " (deleted)"


class Cgroup(NamedTuple):
    """`lasting`: the path is of cgroup v2 and nothing else was there to choose, so that the v2 cgroup's id says all."""

    path: str
    v1: bool
    lasting: bool


class Unit(NamedTuple):
    """`path` is the unit's own cgroup: the process's, or one above it."""

    name: str
    path: str


def cgroup_of(text: str) -> Cgroup | None:
    """The cgroup in /proc/PID/cgroup (cgroups(7)) that systemd manages. The v1 hierarchy `name=systemd` counts where
    systemd uses it. None where there is none that is ours to read."""
    unified: str | None = None
    v1 = False
    for line in text.split("\n"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        v1 = v1 or controllers == "name=systemd"
        if not _is_readable(path):
            continue
        if controllers == "name=systemd" and path != "/":
            return Cgroup(path, v1=True, lasting=False)
        if hierarchy == "0" and not controllers:
            unified = path
    return None if unified is None else Cgroup(unified, v1=False, lasting=not v1)


def unit_of(path: str) -> Unit | None:
    """The unit whose processes live at this cgroup path; None outside of units."""
    parts = path.split("/")
    end = _first_unit(parts, 1)
    if end is None:
        return None
    unit = Unit(_plain(parts[end]), "/".join(parts[: end + 1]))
    own = _first_unit(parts, end + 1) if _MANAGER.fullmatch(unit.name) else None
    return unit if own is None else Unit(f"{unit.name}/{_plain(parts[own])}", "/".join(parts[: own + 1]))


def _first_unit(parts: list[str], begin: int) -> int | None:
    """The place of the first part that is no slice, if that is a unit."""
    for place in range(begin, len(parts)):
        name = _plain(parts[place])
        if not _SLICE.fullmatch(name):
            return place if _UNIT.fullmatch(name) else None
    return None


def _plain(part: str) -> str:
    """systemd puts "_" before names that the kernel reserves ("memory.service") and before those that begin so."""
    return part.removeprefix("_")


def _is_readable(path: str) -> bool:
    """Not outside of our cgroup namespace ("/../x"), and not removed already."""
    return path.startswith("/") and not path.startswith("/..") and not path.endswith(_DELETED)
