"""The monitor: starts processes, starts them again when they die, stops them in order. Nothing else.

For --dev, tests and starting by hand; under systemd the units do this.  Standard library only, nothing is parsed
from outside, no child talks to it.

    SIGTERM, SIGINT   stop the children in reverse order of starting (the daemon, started last, drains first)
    SIGHUP            passed on to every child
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

FIRST_DELAY: Final = 0.02
LONGEST_DELAY: Final = 5.0
STEADY: Final = 10.0
"""A child that lived for so many seconds starts again without delay."""
RETRY: Final = 75
"""EX_TEMPFAIL: a worker whose device is in trouble. It waits before it ends (openk_hsm.reloads), so not we too ..."""
PACED: Final = 0.2
"""... unless it lived for less than so many seconds."""
FINAL: Final = frozenset({0, 78})
"""Exit statuses after which nothing is to be gained by starting again: done, and EX_CONFIG."""


@dataclass(frozen=True, slots=True)
class Child:
    """`environment` is complete, not added to. `drain`: seconds from SIGTERM to SIGKILL. `essential`: when it ends
    with a final status, everything stops and the monitor ends with that status."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    drain: float = 10.0
    essential: bool = False
    pass_fds: Sequence[int] = ()
    """Passed to the first start only (a readiness pipe, say)."""


@dataclass(slots=True)
class _Running:
    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float = 0.0
    ended: bool = False
    starts: int = field(default=0)


class Monitor:
    """Runs children until one of the signals, or an essential child's end. Owns SIGCHLD, SIGTERM, SIGINT, SIGHUP."""

    def __init__(self, children: Sequence[Child], *, pids: Path | None = None) -> None:
        """`children` in order of starting. `pids`: a JSON file {name: pid}, rewritten at each start, for operators."""
        self._children = [_Running(child) for child in children]
        self._pids = pids
        self._stopping = False
        self._hangup = False

    def run(self) -> int:
        """The exit status: of the essential child that ended, else 0."""
        status = 0
        mine = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        signal.pthread_sigmask(signal.SIG_BLOCK, mine)
        try:
            while not self._stopping:
                final = self._round()
                if final is not None:
                    status = final
                    break
                self._wait(mine)
            self._stop()
        finally:
            while signal.sigtimedwait(mine, 0) is not None:  # a second SIGTERM must not end an orderly stop with -15
                continue
            signal.pthread_sigmask(signal.SIG_UNBLOCK, mine)
        return status

    def _round(self) -> int | None:
        """Reap, start what is due; the status of an essential child that ended for good."""
        now = time.monotonic()
        for running in self._children:
            if running.process is not None and running.process.poll() is not None:
                final = self._bury(running, now)
                if final is not None:
                    return final
            if running.process is None and not running.ended and running.due <= now:
                self._start(running, now)
        return None

    def _bury(self, running: _Running, now: float) -> int | None:
        status = running.process.returncode if running.process is not None else 0
        running.process = None
        _log("child ended", name=running.child.name, status=status)
        if status in FINAL:
            running.ended = True
            return status if running.child.essential else None
        if status == RETRY and now - running.started >= PACED:
            running.due = now + FIRST_DELAY
            return None
        if now - running.started >= STEADY:
            running.delay = FIRST_DELAY
        running.due = now + running.delay
        running.delay = min(running.delay * 2, LONGEST_DELAY)
        return None

    def _start(self, running: _Running, now: float) -> None:
        child = running.child
        fds = child.pass_fds if not running.starts else ()
        try:
            running.process = subprocess.Popen(  # noqa: S603 - the arguments are ours
                child.arguments,
                env=dict(child.environment),
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                preexec_fn=partial(_settle_in, os.getpid()),  # noqa: PLW1509 - this process has one thread
                start_new_session=True,  # Ctrl-C reaches the monitor only: it stops the daemon first, then the workers
            )
        except OSError as error:
            _log("cannot start", name=child.name, error=error.strerror)
            running.due = now + running.delay
            running.delay = min(running.delay * 2, LONGEST_DELAY)
            return
        if not running.starts:
            for fd in fds:
                os.close(fd)
        running.starts += 1
        running.started = now
        _log("child started", name=child.name, child=running.process.pid, starts=running.starts)
        self._write_pids()

    def _wait(self, signals: Sequence[signal.Signals]) -> None:
        due = [running.due for running in self._children if running.process is None and not running.ended]
        timeout = max(0.0, min(due) - time.monotonic()) if due else 3600.0
        told = signal.sigtimedwait(signals, timeout)
        if told is None:
            return
        if told.si_signo == signal.SIGHUP:
            for running in self._children:
                if running.process is not None:
                    running.process.send_signal(signal.SIGHUP)
        elif told.si_signo != signal.SIGCHLD:
            self._stopping = True

    def _stop(self) -> None:
        """Last started first: the daemon answers what it has with workers that still live."""
        for running in reversed(self._children):
            process = running.process
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(running.child.drain)
            except subprocess.TimeoutExpired:
                _log("child killed", name=running.child.name)
                process.kill()
                process.wait()
        if self._pids is not None:
            self._pids.unlink(missing_ok=True)

    def _write_pids(self) -> None:
        if self._pids is None:
            return
        table = {r.child.name: r.process.pid for r in self._children if r.process is not None}
        fresh = self._pids.with_name(self._pids.name + ".new")
        fresh.write_text(json.dumps(table))
        fresh.replace(self._pids)


def _settle_in(monitor: int) -> None:
    """In the child, before it becomes what it is to be."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _die_with_parent(monitor)


def _die_with_parent(monitor: int) -> None:
    """PR_SET_PDEATHSIG: a monitor that was killed leaves no worker behind that keeps the token's login, and no daemon
    that keeps the socket. SIGKILL, for a daemon cannot drain without workers: it would wait for them and stand in the
    way of the next one. A monitor that was killed before this line sends no signal any more: look."""
    import ctypes  # noqa: PLC0415 - in the child only

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != monitor:
        os._exit(0)


def _log(event: str, **fields: object) -> None:
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, "pid": os.getpid(), **fields}
    try:
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def run(children: Sequence[Child], *, pids: Path | None = None) -> int:
    """Run `children` until told to stop; see `Monitor`."""
    return Monitor(children, pids=pids).run()
