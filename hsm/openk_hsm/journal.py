"""A worker's log: JSON lines on stderr, by hand, because a worker imports little. Never a secret, never input bytes.
Under journald they are entries with fields of their own (openk_hsm.journald), or, where its socket is not there, begin
with their priority (`<4>`, sd-daemon(3)).

What nobody takes is dropped and counted: a reader of the log that stalls must not stall the HSM. An event that repeats
is written a few times and then counted; debug lines are exempt.
"""

from __future__ import annotations

import json
import os
import select
import time
from socket import socket
from typing import Final

from openk_hsm import journald
from openk_hsm.repeats import Repeats

_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LINE_MOST: Final = select.PIPE_BUF
"""Bytes: a write to a pipe that poll calls writable is whole then, and does not block."""
_STDERR: Final = 2


class _Journal:
    """This process's: a worker has one."""

    def __init__(self) -> None:
        self.debugging = False
        self.socket: socket | None = None
        self.repeats = Repeats()
        self.dropped = 0
        self.journald = journald.receives(_STDERR, os.environ)
        """Whether standard error is journald's."""


_JOURNAL: Final = _Journal()


def open_journal(*, debug: bool = False) -> None:
    """Find journald, before the process confines itself. `debug`: debug lines are written, too."""
    _JOURNAL.debugging = debug
    if _JOURNAL.journald:
        _JOURNAL.socket = journald.connect()


def debugging() -> bool:
    """Whether debug lines are written: ask before making one."""
    return _JOURNAL.debugging


def log(level: str, event: str, **fields: object) -> None:
    """One line. `fields` are JSON values; foreign exceptions go in by type name only."""
    if level != "debug":
        suppressed = _JOURNAL.repeats.admit(event, time.monotonic())
        if suppressed is None:
            return
        if suppressed:
            fields["suppressed"] = suppressed
    elif not _JOURNAL.debugging:
        return
    _deliver(level, event, fields)


def tell_suppressed() -> None:
    """Say how many lines were kept back of events that have fallen silent. Call it now and then."""
    for event, count in _JOURNAL.repeats.silent(time.monotonic()):
        _deliver("warning", "log suppressed", {"of": event, "suppressed": count})


def _deliver(level: str, event: str, fields: dict[str, object]) -> None:
    if _JOURNAL.dropped:
        fields["dropped"] = _JOURNAL.dropped
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    begin = {"time": stamp, "level": level, "event": event, "pid": os.getpid()}
    line = json.dumps(begin | fields, default=str)
    while len(line) >= _LINE_MOST - 4:  # whole JSON, without what is longest
        del fields[max(fields, key=lambda name: len(str(fields[name])))]
        line = json.dumps(begin | fields | {"cut": True}, default=str)
    if _send_entry(line, level, {"event": event, **fields}) or _send(f"{_prefix(level)}{line}\n".encode()):
        _JOURNAL.dropped = 0
    else:
        _JOURNAL.dropped += 1


def _send_entry(line: str, level: str, told: dict[str, object]) -> bool:
    if _JOURNAL.socket is None:
        return False
    try:
        _JOURNAL.socket.send(journald.entry(line, _PRIORITY[level], told, "openk-hsm"))
    except OSError:  # full, or journald has gone
        return False
    return True


def _send(line: bytes) -> bool:
    try:
        poll = select.poll()
        poll.register(_STDERR, select.POLLOUT)
        ready = poll.poll(0)
        return bool(ready) and bool(ready[0][1] & select.POLLOUT) and os.write(_STDERR, line) == len(line)
    except OSError:  # whoever read our log has gone; the work goes on
        return False


def _prefix(level: str) -> str:
    return f"<{_PRIORITY[level]}>" if _JOURNAL.journald else ""
