"""Users and groups of this host by name, from /etc/passwd and /etc/group alone: no name service, which could block.

Read when policies are loaded; the names then stay in force, with the policies, until the next reload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Names:
    """`member` maps a uid to its groups: the primary one first, then those that list the user."""

    users: Mapping[int, str] = field(default_factory=dict[int, str])
    groups: Mapping[int, str] = field(default_factory=dict[int, str])
    member: Mapping[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])

    def gid(self, name: str) -> int | None:
        """The group of that name, or None."""
        return next((gid for gid, known in self.groups.items() if known == name), None)


def local_names(passwd: Path = Path("/etc/passwd"), group: Path = Path("/etc/group")) -> Names:
    """What the two files say. Lines that are not well formed are passed over (NIS leaves some); a missing file is
    an empty one. Of several lines for one number the first counts, as in the C library."""
    users: dict[int, str] = {}
    primary: dict[str, tuple[int, int]] = {}
    for name, _, uid, gid, *_ in _lines(passwd, 4):
        if _is_id(uid) and _is_id(gid):
            users.setdefault(int(uid), name)
            primary.setdefault(name, (int(uid), int(gid)))
    groups: dict[int, str] = {}
    listed: dict[str, list[int]] = {}
    for name, _, gid, *rest in _lines(group, 3):
        if _is_id(gid):
            groups.setdefault(int(gid), name)
            for user in "".join(rest[:1]).split(","):
                listed.setdefault(user, []).append(int(gid))
    member = {uid: tuple(dict.fromkeys([gid, *listed.get(name, [])])) for name, (uid, gid) in primary.items()}
    return Names(users, groups, member)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len("4294967295")


def _lines(path: Path, least: int) -> list[list[str]]:
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    return [parts for parts in (line.split(":") for line in text.splitlines()) if len(parts) >= least]
