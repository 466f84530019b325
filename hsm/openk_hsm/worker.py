"""The worker process: owns the PIN and the vendor's module, serves one daemon at a time on a seqpacket socket.

    bind (or take) the socket ─▶ load the module ─▶ confine itself ─▶ log in, once ─▶ READY
                                        ─▶ accept ─▶ hello: region ─▶ open ─▶ Service.run ─▶ accept ...

A sealed worker (openk_hsm.seal) does not log in: it waits for a hello that unseals. One that is told to seal sets the
mark and ends, so that nothing stays in the vendor's memory; the process started in its place finds the mark.

Whatever is wrong with the token is told to the daemon that connects, then the process ends with `RETRY` and whoever
started it starts it again, with a fresh copy of the module.  A wrong PIN latches instead (openk_hsm.latch): the
process stays, says so to each daemon, and ends once the latch is cleared.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from openk_hsm import frames, journal, notify
from openk_hsm.errors import HsmError, Sealed, SessionLost, TokenMissing, Unavailable, WrongPin
from openk_hsm.footing import take_footing
from openk_hsm.frames import BadFrame, Hello, Intent
from openk_hsm.latch import Latch
from openk_hsm.operation_log import SLOW, OperationLog
from openk_hsm.pin import PinSource
from openk_hsm.reach import Named, reach_of
from openk_hsm.registry import make_backend
from openk_hsm.reloads import Pace, Reloads
from openk_hsm.seal import Seal
from openk_hsm.seam import Backend, EarlyLoad, EarlyLogin
from openk_hsm.service import Service, receive_hello
from openk_hsm.uri import HsmUri, parse_uri
from openk_hsm.watch import PERIOD, Reaction, Traced, Watch
from openk_memory.errors import LockedMemoryError
from openk_memory.handoff import HandOff
from openk_memory.hardening import HardeningRefused, Measure, Report, attempt, harden_worker
from openk_memory.tracers import Tracers

RETRY: Final = 75
"""Exit status (EX_TEMPFAIL): start me again."""
MISCONFIGURED: Final = 78
"""Exit status (EX_CONFIG): an operator must change something first."""
_TELL_FOR: Final = 0.5  # seconds that a worker which cannot log in stays at least to say so
_RENEW_AGAIN: Final = 10.0
"""Seconds that new sessions must have lasted: if the device forgets them sooner, a fresh module is the cure."""
_HELLO_WITHIN: Final = 5.0
_SILENT: Final = 60.0  # seconds, where nobody waits for a sign of life
_LOOK_WITHIN: Final = PERIOD  # seconds between two looks around while nobody connects
_NO_CONFINEMENT: Final = frozenset({Measure.BOUNDING, Measure.LANDLOCK, Measure.SECCOMP, Measure.ENVIRONMENT})


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    uri: str
    socket: Path
    pin: PinSource
    state: Path
    """Where the latch lives: must survive a restart of the machine to do its work there."""
    mode: int = 0o660
    ready_fd: int | None = None
    software: bool = False
    harden: bool = True
    reach: Named = field(default_factory=Named)
    """Paths that the module needs and openk does not know of."""
    on_tracer: Reaction = Reaction.LOG
    pace: Pace = field(default_factory=Pace)
    """How often the module may be loaded anew because the device is in trouble."""
    debug: bool = False
    """The log tells of every operation."""
    slow: float = SLOW
    """Seconds: an operation that takes longer in the device is told of; 0: none is."""


class _Worker:
    """What the steps of a worker's life share."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.uri: HsmUri = parse_uri(settings.uri)
        self.backend: Backend = make_backend(self.uri, software=settings.software, state=settings.state)
        self.latch = Latch(settings.state, settings.uri)
        self.seal = Seal(settings.state, settings.uri)
        self.tracers = Tracers()
        self.watch = Watch(settings.on_tracer, self.seal, self.tracers)
        self.pin = settings.pin
        self.slow = settings.slow
        self.reloads = Reloads(settings.state, settings.uri, settings.pace)
        self._renewed = -_RENEW_AGAIN

    def log_in(self) -> None:
        """Raises HsmError; what `Watch.look` raises."""
        if not isinstance(self.backend, EarlyLogin):
            if self.latch.is_set:
                raise self.latch.error()
            return
        self.watch.look_before_login()
        with self.latch.guarded(), self.pin.read() as pin:
            self.backend.log_in(lambda: pin)

    def renew(self) -> bool:
        """New sessions, in this process, after the device forgot the old ones. False: a fresh module is the cure."""
        if time.monotonic() - self._renewed < _RENEW_AGAIN:
            return False
        self._renewed = time.monotonic()
        try:
            self.backend.close()
            self.log_in()
        except (Sealed, Traced):
            raise
        except HsmError as error:
            journal.log("error", "no new sessions", code=error.code, device=error.device, text=str(error))
            return False
        journal.log("warning", "new sessions: the device had forgotten the old ones")
        return True


def serve(settings: WorkerSettings) -> int:
    """Run until the token is in trouble or a signal ends it. The exit status."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whoever started us may have left it ignored or blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM, signal.SIGTERM))
    try:
        journal.open_journal(debug=settings.debug)
        take_footing()
        worker = _Worker(settings)
        with _listening(settings) as listener:
            return _live(listener, worker, settings)
    except Sealed:
        return RETRY  # the next process finds the mark and waits
    except Traced:
        return MISCONFIGURED
    except LockedMemoryError as error:
        journal.log("error", "not.started", text=str(error))
        return MISCONFIGURED


def _live(listener: socket.socket, worker: _Worker, settings: WorkerSettings) -> int:
    """From the socket to the end; the exit status. Raises what `Watch.look` raises."""
    try:
        if isinstance(worker.backend, EarlyLoad):
            worker.backend.load()
        if settings.harden:
            _harden(worker, settings)
        if worker.seal.is_set:
            _announce(settings)
            return _wait_sealed(listener, worker)
        worker.log_in()
    except (Sealed, Traced):
        raise
    except HsmError as error:
        journal.log("error", "cannot log in", code=error.code, device=error.device, text=str(error))
        _announce(settings)
        return _tell(listener, error, worker, _TELL_FOR)
    _announce(settings)
    return _accept_for_ever(listener, worker)


@contextmanager
def _listening(settings: WorkerSettings) -> Generator[socket.socket]:
    given = notify.inherited_socket()
    if given is not None:
        yield given
        given.close()
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener:
        path = settings.socket
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()  # left by a worker that was killed
        except FileNotFoundError:
            pass
        before = os.umask(0o777 & ~settings.mode)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise HsmError(f"cannot bind the socket {path}: {error.strerror}") from None
        finally:
            os.umask(before)
        listener.listen(4)
        yield listener


def _announce(settings: WorkerSettings) -> None:
    notify.notify("READY=1")
    if settings.ready_fd is not None:
        os.write(settings.ready_fd, b"\n")
        os.close(settings.ready_fd)


def _harden(worker: _Worker, settings: WorkerSettings) -> None:
    """Before the PIN is read. Where it is not known what the module needs, the unit alone confines it to files."""
    told = attempt(Measure.TRACER_EVENTS, worker.tracers.events.subscribe)
    try:
        reach = reach_of(worker.uri, settings.pin, settings.state, settings.reach)
        report = harden_worker(reach, tolerate=_NO_CONFINEMENT)
    except HardeningRefused as refused:
        journal.log("error", "not.started", text=str(refused), report=str(refused.report))
        raise SystemExit(MISCONFIGURED) from None
    for step in Report((told, *report.steps)).missing:
        journal.log(step.level, "hardening.missing", measure=step.measure, detail=step.detail)


def _wait(
    listener: socket.socket, watch: Watch, until: float | None = None, gone: Callable[[], bool] | None = None
) -> socket.socket | None:
    """The next connection; None at `until` (monotonic), or once what holds us back is `gone`. Raises what `watch`
    raises."""
    pause = notify.watchdog_seconds()
    due = 0.0
    while True:
        if time.monotonic() >= due:
            notify.notify("WATCHDOG=1")
            due = time.monotonic() + (pause or _SILENT) / 2
        watch.look()
        limits = [_LOOK_WITHIN]
        if until is not None:
            limits.append(until - time.monotonic())
        if select.select([listener], [], [], max(0.0, min(limits)))[0]:
            connection, _ = listener.accept()
            return connection
        if (gone is not None and gone()) or (until is not None and time.monotonic() >= until):
            return None


def _tell(listener: socket.socket, error: HsmError, worker: _Worker, least: float) -> int:
    """Say what is wrong to each daemon that connects: for `least` seconds, and until the module may be loaded anew."""
    latched = isinstance(error, WrongPin) and worker.latch.is_set
    until = None
    if not latched:
        patience = max(least, worker.reloads.take())
        until = time.monotonic() + patience
        error.retry_after = patience
        journal.log("warning", "the module will be loaded anew", after=round(patience, 1), device=error.device)
    while True:
        connection = _wait(listener, worker.watch, until, (lambda: not worker.latch.is_set) if latched else None)
        if connection is None:
            return RETRY
        with connection:
            try:
                connection.settimeout(_HELLO_WITHIN)
                connection.recv(frames.HELLO.size)  # its descriptor is not asked for: the kernel drops it
                connection.send(frames.pack_error(frames.REFUSAL, 0, error))
            except OSError:
                continue


def _wait_sealed(listener: socket.socket, worker: _Worker) -> int:
    """Logged out, until a hello unseals or an operator takes the mark away. The mark goes once the login succeeded."""
    journal.log("warning", "sealed: waiting for an operator")
    while True:
        connection = _wait(listener, worker.watch, gone=lambda: not worker.seal.is_set)
        if connection is None:
            return RETRY
        with connection:
            hello, region = _greet(connection)
            if hello is None or hello.intent is not Intent.UNSEAL or region is None:
                if region is not None:
                    region.close()
                _refuse(connection, worker.seal.error())
                continue
            try:
                worker.log_in()
                worker.seal.clear()
            except HsmError as error:
                journal.log("error", "cannot log in", code=error.code, device=error.device, text=str(error))
                region.close()
                _refuse(connection, error)
                return MISCONFIGURED if isinstance(error, Traced) else RETRY
            journal.log("warning", "unsealed")
            ended = _serve_one(connection, region, worker, hello.run)
        return _accept_for_ever(listener, worker) if ended is None else _end(listener, ended, worker)


def _accept_for_ever(listener: socket.socket, worker: _Worker) -> int:
    while True:
        connection = _wait(listener, worker.watch)
        if connection is None:
            continue
        with connection:
            hello, region = _greet(connection)
            if hello is not None and hello.intent is Intent.SEAL:
                journal.log("warning", "sealed by openkd")
                error: HsmError | None = _seal(connection, worker)
            elif hello is not None and region is not None:
                error = _serve_one(connection, region, worker, hello.run)
            else:
                error = None
        if error is not None and not (isinstance(error, SessionLost) and worker.renew()):
            return _end(listener, error, worker)


def _end(listener: socket.socket, error: HsmError, worker: _Worker) -> int:
    """The exit status after what made this process useless."""
    return RETRY if isinstance(error, Sealed) else _tell(listener, error, worker, 0.0)


def _greet(connection: socket.socket) -> tuple[Hello | None, HandOff | None]:
    """What the daemon says, and its region, which the caller closes. None: it said nothing of use."""
    try:
        connection.settimeout(_HELLO_WITHIN)
        hello, region = receive_hello(connection)
        connection.settimeout(None)
    except (OSError, HsmError) as error:
        journal.log("warning", "no hello", text=str(error))
        if isinstance(error, Unavailable) and not isinstance(error, BadFrame):
            _refuse(connection, error)
        return None, None
    return hello, region


def _seal(connection: socket.socket, worker: _Worker) -> HsmError:
    """The mark first, then the farewell: whatever happens in between, the next process does not log in. The login
    ends with this process."""
    try:
        error: HsmError = worker.seal.set("by openkd")
    except HsmError as problem:
        journal.log("error", "cannot seal", text=str(problem))
        error = problem
    _refuse(connection, error)
    return error


def _serve_one(connection: socket.socket, region: HandOff, worker: _Worker, run: int) -> HsmError | None:
    """One daemon, whose `run` its hello told, to its farewell. An error: this process is of no further use."""
    with region:
        try:
            _open(connection, region, worker)
        except HsmError as error:
            journal.log("error", "cannot open the token", code=error.code, device=error.device, text=str(error))
            _refuse(connection, error)
            return error
        except OSError as error:
            journal.log("info", "the daemon has gone", text=error.strerror)
            return None
        try:
            told = OperationLog(run, worker.slow)
            Service(connection, worker.backend, region, worker.watch.look, told).run()
        except (Unavailable, TokenMissing) as error:
            _part(connection, error)
            return error
        except BadFrame as error:
            journal.log("error", "the daemon sent nonsense", text=str(error))
            _part(connection)
        except OSError as error:
            journal.log("info", "the daemon has gone", text=error.strerror)
        except (Sealed, Traced):
            _part(connection, worker.seal.error())
            raise
    return None


def _part(connection: socket.socket, error: HsmError | None = None) -> None:
    """Leave a daemon that is still there: the last word, then wait until it has gone. Only then may the region be
    closed, which wipes it: what was answered lies there until the daemon has read it, and zeros would pass for answers.
    """
    if error is not None:
        _refuse(connection, error)
    pause = notify.watchdog_seconds()
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(pause)
        while True:
            notify.notify("WATCHDOG=1")
            with suppress(TimeoutError, BlockingIOError):
                if not connection.recv(1):  # of what it still sends nothing is done: it sees that we have ended
                    return
    except OSError as problem:
        journal.log("info", "the daemon has gone", text=problem.strerror)


def _open(connection: socket.socket, region: HandOff, worker: _Worker) -> None:
    backend = worker.backend
    if isinstance(backend, EarlyLogin):
        info = backend.open(region.view, region.address, lambda: memoryview(b""))
    else:
        worker.watch.look_before_login()
        with worker.latch.guarded(), worker.pin.read() as pin:
            info = backend.open(region.view, region.address, lambda: pin)
    connection.send(frames.pack_body(frames.READY, frames.info_to_wire(info)))


def _refuse(connection: socket.socket, error: HsmError) -> None:
    try:
        connection.send(frames.pack_error(frames.REFUSAL, 0, error))
    except OSError as problem:
        journal.log("info", "the daemon has gone", text=problem.strerror)
