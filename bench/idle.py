"""What openk takes while it does nothing: ten thousand connections, its memory, its start."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Final

from bench import frames
from bench.daemon import Daemon, Usage, raise_file_limit
from bench.result import Result, at_most, missing
from bench.stage import Stage

WANTED: Final = 10_000
SPARE: Final = 32
"""Below the daemon's own limit of 10,000, so that the run's other connections find a place."""


def idle_connections(stage: Stage) -> list[Result]:
    """Each connection asks one question first, so that what a request leaves behind is counted, too."""
    row, work = "idle", f"{WANTED:,} idle connections"
    count = WANTED - SPARE
    limit = raise_file_limit()
    if limit < count + 256:
        return [missing(row, work, "≤ 10 kB each", f"only {limit} open files are allowed here: raise ulimit -Hn.")]
    daemon = stage.daemon(1)
    before = daemon.usage()
    with ExitStack() as stack:
        _connect(daemon, count, stack)
        time.sleep(0.5)
        was, now = _grown(before, daemon.usage())
    each = (now.resident - was.resident) / count
    locked, descriptors = now.locked - was.locked, (now.descriptors - was.descriptors) / count
    shown = (f"{each / 1000:.1f} kB each", "-", "≤ 10 kB")
    more = (f"{locked / 1000:,.0f} kB locked for all", "-", "none")
    files = (f"{descriptors:.2f} fds each", "-", "1")
    hidden = "" if now.descriptors else "the kernel hides this daemon's descriptors from us: run as root"
    return [
        at_most("idle.memory", f"{work}: memory", each, 10_000, shown),
        Result("idle.locked", f"{work}: locked memory", *more[:2], None, more[2], locked <= 0),
        Result(
            "idle.files",
            f"{work}: descriptors",
            *files[:2],
            None,
            files[2],
            descriptors <= 1.001 if not hidden else None,
            hidden,
        ),
    ]


def _connect(daemon: Daemon, count: int, stack: ExitStack) -> None:
    ping = frames.request("system.ping", {})
    for _ in range(count):
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(10)
        client.connect(str(daemon.socket))
        client.sendall(ping)
        if not client.recv(256).startswith(b"\x94\x01\x00\xc0"):
            message = "an idle connection's first ping was not answered well"
            raise RuntimeError(message)


def _grown(before: list[Usage], after: list[Usage]) -> tuple[Usage, Usage]:
    """The process that took the connections, before and after."""
    known = {usage.pid: usage for usage in before}
    pairs = [(known[usage.pid], usage) for usage in after if usage.pid in known]
    return max(pairs, key=lambda pair: pair[1].resident - pair[0].resident)


def start(stage: Stage) -> list[Result]:
    """A start on a state that exists, and the resident memory of all its processes, on a daemon nobody has loaded."""
    with ExitStack() as stack:
        folder = stage.folder / "start"
        folder.mkdir(mode=0o700)
        daemon = Daemon(folder, 1, stack)
        time.sleep(1)
        usage = daemon.usage()
    monitor, *counted = usage
    total = sum(one.resident for one in counted)
    parts = " + ".join(f"{one.resident / 1e6:.0f}" for one in counted)
    ready = (f"{daemon.ready_seconds:.2f} s", "-", "≤ 1 s")
    memory = (f"{total / 1e6:.0f} MB = {parts}", "-", "≤ 120 MB")
    names = ", ".join(one.name for one in counted)
    note = f"Processes: {names}. The monitor's {monitor.resident / 1e6:.0f} MB are not in it: systemd has its part."
    return [
        at_most("start.ready", "from start to ready", daemon.ready_seconds, 1.0, ready),
        at_most("start.memory", "RSS of daemon and one worker", total, 120e6, memory, note),
    ]
