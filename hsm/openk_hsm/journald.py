"""journald's own protocol: a line with fields of its own, so that `journalctl OPENK_REQUEST=...` finds it.

One datagram an entry to /run/systemd/journal/socket (systemd's "Native Journal Protocol"):

    NAME=value\\n                                      a value on one line
    NAME\\n | length u64, little endian | value | \\n   any other
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
VALUE_MOST: Final = 256
"""Characters of a fact that becomes a field: it is for looking up; MESSAGE has all of it."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,57}")
"""Names of facts that become OPENK_ fields: at most 64 of A-Z, 0-9 and _, as journald takes them."""


def receives(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether what is written to `descriptor` goes to journald: JOURNAL_STREAM names its stream (systemd.exec(5))."""
    named = environment.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def connect(path: str = SOCKET) -> socket.socket | None:
    """A socket to journald that does not block; None where none listens."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        found.connect(path)
    except OSError:
        found.close()
        return None
    return found


def entry(message: str, priority: int, facts: Mapping[str, object], program: str) -> bytes:
    """The datagram. Text and numbers among `facts` become OPENK_ fields; lists, maps and None are in MESSAGE only."""
    fields = [("PRIORITY", str(priority)), ("SYSLOG_IDENTIFIER", program)]
    for name, value in facts.items():
        if isinstance(value, str | int | float) and _NAME.fullmatch(name):
            shown = str(value) if not isinstance(value, bool) else str(int(value))
            fields.append((f"OPENK_{name.upper()}", shown[:VALUE_MOST]))
    return b"".join(_field(*pair) for pair in [("MESSAGE", message), *fields])


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
