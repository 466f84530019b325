"""sd_notify(3) and socket activation (sd_listen_fds(3)) by the standard library."""

from __future__ import annotations

import os
import socket
from typing import Final

FIRST_FD: Final = 3


def notify(state: str) -> bool:
    """Tell the service manager, such as READY=1; False when there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect("\0" + address[1:] if address[0] == "@" else address)
            channel.sendall(state.encode())
        except OSError:
            return False
    return True


def watchdog_seconds() -> float | None:
    """How often to send WATCHDOG=1, in seconds (half of what the manager allows), or None."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2e6


def inherited_socket() -> socket.socket | None:
    """The one listening socket passed by the service manager, or None."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=FIRST_FD)
