"""Words exchanged with the service manager: sd_notify(3), watchdog, inherited sockets (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START


class ServiceManager:
    """Tells systemd how it goes; without systemd every word falls silent. Nothing here blocks or raises:
    a service manager that does not listen must not stop the daemon. The variables are taken out of
    `environment`, so that no child process believes they are meant for it."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        interval = environment.pop("WATCHDOG_USEC", "")
        mine = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds: float | None = int(interval) / 1e6 if mine and interval.isdecimal() else None
        """Send `alive` more often than this (half of it is good practice), or be restarted; None: no watchdog."""
        self._inherited = _inherit(environment)

    @property
    def present(self) -> bool:
        return bool(self._address)

    def ready(self, status: str) -> None:
        self._say(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """Before a reload; `ready` ends it (Type=notify-reload)."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        self._say(f"STOPPING=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        self._say(f"STATUS={_line(status)}")

    def alive(self) -> None:
        self._say("WATCHDOG=1")

    def sockets(self, name: str) -> list[socket.socket]:
        """Listening sockets systemd opened under FileDescriptorName=`name`; each is handed out once, and the
        caller closes it."""
        return [socket.socket(fileno=descriptor) for descriptor in self._inherited.pop(name, [])]

    def _say(self, words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
                notifier.setblocking(False)
                notifier.sendto(words.encode(), self._address)
        except OSError:
            return


def _inherit(environment: MutableMapping[str, str]) -> dict[str, list[int]]:
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not count.isdecimal():
        return found
    for offset in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + offset
        os.set_inheritable(descriptor, False)
        name = names[offset] if offset < len(names) and names[offset] else "unknown"
        found.setdefault(name, []).append(descriptor)
    return found


def _line(text: str) -> str:
    return text.replace("\n", " ")[:200]
