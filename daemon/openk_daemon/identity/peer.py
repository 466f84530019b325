"""Identify who connected: facts of the kernel alone, read before a byte of the connection is.

What could not be told for certain is None, or the connection is refused where a policy could be evaded by that:
a process that has ended could no longer be tied to its unit, so a `forbid` on the unit would not catch it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from openk_daemon.identity.caller import Caller, Peer
from openk_daemon.identity.kernel import cgroup_id, is_alive, peer_credentials, peer_groups, peer_pidfd
from openk_daemon.identity.units import cgroup_of, unit_of
from openk_daemon.refusal import Refusal

_KNOWN_MOST: Final = 4096
"""Units and callers that are remembered, so that accepting is quick and equal callers are one object."""

_V2_ROOTS: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_V1_ROOTS: Final = ("/sys/fs/cgroup/systemd",)
_INVOCATION: Final = 32  # hex digits, systemd.exec(5) INVOCATION_ID
_NOBODY_KNOWS: Final = 0xFFFFFFFF  # (uid_t) -1


def _overflow_uid() -> int:
    """The uid that stands for users of other user namespaces (proc(5), /proc/sys/kernel/overflowuid)."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))
    except (OSError, ValueError):
        return 65534


class Identifier:
    """Identifies peers. Remembers what cannot change: which unit a cgroup id is. Used from one thread."""

    def __init__(self, administrators: Collection[int], proc: str = "/proc") -> None:
        """`administrators` are uids."""
        self._administrators = frozenset(administrators)
        self._proc = proc
        self._overflow = _overflow_uid()
        self._cgroups: dict[int, tuple[str, str | None]] = {}
        self._callers: dict[Caller, Caller] = {}

    def identify(self, sock: socket.socket, connection: int) -> Peer:
        """Whoever connected `sock`. Raises Refusal auth.unidentified. Leaves no descriptor open."""
        try:
            pid, uid, gid = peer_credentials(sock)
            groups = peer_groups(sock)
            if uid in {_NOBODY_KNOWS, self._overflow}:
                raise _unidentified(f"uid {uid} stands for anybody the kernel cannot name here")
            unit, invocation, executable = self._process(sock, pid, uid)
        except OSError as error:
            raise _unidentified("it does not answer, or the process has ended") from error
        caller = Caller(uid, gid, groups, unit, invocation, executable, uid in self._administrators)
        if len(self._callers) >= _KNOWN_MOST:
            self._callers.clear()
        caller = self._callers.setdefault(caller, caller)
        return Peer(caller, pid, connection, audit_fragment(caller, pid))

    def _process(self, sock: socket.socket, pid: int, uid: int) -> tuple[str | None, str | None, str | None]:
        """(unit, invocation, executable), or nothing for a process of another pid namespace. Raises OSError."""
        if pid <= 0:
            return None, None, None
        pidfd = peer_pidfd(sock)
        old = pidfd is None
        if pidfd is None:
            # Before Linux 6.5: by number. Between connect() and here the process may have ended and another have
            # taken its number; that one would have to run as the same user, which is checked.
            pidfd = os.pidfd_open(pid)
        try:
            if old and uid not in self._uids(pid):
                raise ProcessLookupError(errno.ESRCH, "the pid is another user's process by now")
            unit, invocation = self._unit(pid, None if old else cgroup_id(pidfd))
            executable = self._executable(pid)
            if not is_alive(pidfd):  # what was read under its number may be another's
                raise ProcessLookupError(errno.ESRCH, "the process has ended")
        finally:
            os.close(pidfd)
        return unit, invocation, executable

    def _unit(self, pid: int, cgroup: int | None) -> tuple[str | None, str | None]:
        known = self._cgroups.get(cgroup) if cgroup is not None else None
        if known is None:
            known = self._look_up(pid, cgroup)
        folder, unit = known
        return unit, _invocation(folder) if folder else None

    def _look_up(self, pid: int, cgroup: int | None) -> tuple[str, str | None]:
        """The folder of the process's unit and its name, from /proc/PID/cgroup. Raises OSError."""
        with open(f"{self._proc}/{pid}/cgroup", "rb") as file:
            found = cgroup_of(file.read().decode("utf-8", errors="replace"))
        unit = unit_of(found.path) if found is not None else None
        if found is None or unit is None:
            return "", None
        for root in _V1_ROOTS if found.v1 else _V2_ROOTS:
            inode = _inode(root + found.path)
            if inode is not None:
                known = root + unit.path, unit.name
                # Only where path and id are seen to be one cgroup may the id stand for the path from now on.
                if found.lasting and cgroup is not None and cgroup == inode:
                    self._remember(cgroup, known)
                return known
        return "", unit.name  # cgroups are not mounted where we look: the kernel's word is enough

    def _remember(self, cgroup: int, known: tuple[str, str | None]) -> None:
        if len(self._cgroups) >= _KNOWN_MOST:
            self._cgroups.clear()
        self._cgroups[cgroup] = known

    def _executable(self, pid: int) -> str | None:
        """Its program's path, where we may see it (same user, or CAP_SYS_PTRACE) and where that path is that file
        for us too: in a mount namespace of its own a process can put any file anywhere."""
        link = f"{self._proc}/{pid}/exe"
        try:
            path = os.readlink(link)
            path.encode("utf-8")
            seen, ours = os.stat(link), os.stat(path)
        except (OSError, UnicodeEncodeError, ValueError):
            return None
        return path if (seen.st_dev, seen.st_ino) == (ours.st_dev, ours.st_ino) else None

    def _uids(self, pid: int) -> frozenset[int]:
        """Real, effective, saved and file system uid. Raises OSError."""
        with open(f"{self._proc}/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return frozenset(int(uid) for uid in line.split()[1:])
        raise ProcessLookupError(errno.ESRCH, "no uid in status")


def identify(sock: socket.socket, connection: int, *, administrators: Collection[int]) -> Peer:
    """Identify one peer without remembering anything. Raises Refusal auth.unidentified."""
    return Identifier(administrators).identify(sock, connection)


def audit_fragment(caller: Caller, pid: int) -> str:
    """The caller as members of a JSON object, ASCII, without braces: `"uid":0,"gid":0,"pid":1,"unit":null,...`."""
    facts = {
        "uid": caller.uid,
        "gid": caller.gid,
        "pid": pid,
        "unit": caller.unit,
        "invocation": caller.invocation,
        "exe": caller.executable,
    }
    return json.dumps(facts, separators=(",", ":"))[1:-1]


def _unidentified(why: str) -> Refusal:
    return Refusal("auth.unidentified", f"The kernel does not say who is calling: {why}.")


def _inode(folder: str) -> int | None:
    try:
        return os.stat(folder).st_ino
    except (OSError, ValueError):
        return None


def _invocation(folder: str) -> str | None:
    """systemd's id of this run of the unit: user.invocation_id for all to see (since 255), trusted.* for root."""
    for name in ("user.invocation_id", "trusted.invocation_id"):
        try:
            value = os.getxattr(folder, name)
        except (OSError, ValueError):
            continue
        if len(value) == _INVOCATION and all(digit in b"0123456789abcdef" for digit in value):
            return value.decode("ascii")
    return None
