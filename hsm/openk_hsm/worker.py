"""The worker process: owns the PIN and the vendor's module, serves one daemon at a time on a seqpacket socket.

    bind (or take) the socket ─▶ log in, once ─▶ READY ─▶ accept ─▶ hello: region ─▶ open ─▶ Service.run ─▶ accept ...

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
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_hsm import frames, journal, notify
from openk_hsm.errors import HsmError, Unavailable, WrongPin
from openk_hsm.frames import BadFrame
from openk_hsm.latch import Latch
from openk_hsm.pin import PinSource
from openk_hsm.registry import make_backend
from openk_hsm.seam import Backend, EarlyLogin
from openk_hsm.service import Service, receive_region
from openk_hsm.uri import parse_uri
from openk_memory.handoff import HandOff
from openk_memory.hardening import HardeningRefused, Measure, harden_worker

RETRY: Final = 75
"""Exit status (EX_TEMPFAIL): start me again."""
MISCONFIGURED: Final = 78
"""Exit status (EX_CONFIG): an operator must change something first."""
_TELL_FOR: Final = 2.0  # seconds that a worker whose token is in trouble stays to say so
_HELLO_WITHIN: Final = 5.0
_NO_CONFINEMENT: Final = frozenset({Measure.BOUNDING, Measure.LANDLOCK, Measure.SECCOMP})


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


def serve(settings: WorkerSettings) -> int:
    """Run until the token is in trouble or a signal ends it. The exit status."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whoever started us may have left it ignored or blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM, signal.SIGTERM))
    uri = parse_uri(settings.uri)
    backend = make_backend(uri, software=settings.software)
    latch = Latch(settings.state, settings.uri)
    with _listening(settings) as listener:
        try:
            _log_in(backend, latch, settings.pin)
        except HsmError as error:
            journal.log("error", "cannot log in", code=error.code, device=error.device, text=str(error))
            _announce(settings)
            return _tell(listener, error, latch)
        if settings.harden:
            _harden()
        _announce(settings)
        return _accept_for_ever(listener, backend, latch, settings.pin)


def _log_in(backend: Backend, latch: Latch, source: PinSource) -> None:
    if not isinstance(backend, EarlyLogin):
        if latch.is_set:
            raise latch.error()
        return
    with latch.guarded(), source.read() as pin:
        backend.log_in(lambda: pin)


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


def _harden() -> None:
    """What holds for any vendor's module; systemd's unit confines further, knowing the module's files."""
    try:
        report = harden_worker(None, tolerate=_NO_CONFINEMENT)
    except HardeningRefused as refused:
        journal.log("error", "not hardened", report=str(refused.report))
        raise SystemExit(MISCONFIGURED) from None
    for step in report.missing:
        journal.log("info", "not hardened", measure=step.measure, detail=step.detail)


def _wait(listener: socket.socket, until: float | None, latch: Latch | None = None) -> socket.socket | None:
    """The next connection; None at `until` (monotonic), or once `latch` is given and cleared."""
    pause = notify.watchdog_seconds()
    while True:
        notify.notify("WATCHDOG=1")
        limits = [1.0 if latch is not None else 3600.0]
        if pause is not None:
            limits.append(pause)
        if until is not None:
            limits.append(until - time.monotonic())
        if select.select([listener], [], [], max(0.0, min(limits)))[0]:
            connection, _ = listener.accept()
            return connection
        if (latch is not None and not latch.is_set) or (until is not None and time.monotonic() >= until):
            return None


def _tell(listener: socket.socket, error: HsmError, latch: Latch) -> int:
    """Say what is wrong to each daemon that connects."""
    latched = isinstance(error, WrongPin) and latch.is_set
    until = None if latched else time.monotonic() + _TELL_FOR
    while True:
        connection = _wait(listener, until, latch if latched else None)
        if connection is None:
            return RETRY
        with connection:
            try:
                connection.settimeout(_HELLO_WITHIN)
                connection.recv(frames.HELLO.size)  # its descriptor is not asked for: the kernel drops it
                connection.send(frames.pack_error(frames.REFUSAL, 0, error))
            except OSError:
                continue


def _accept_for_ever(listener: socket.socket, backend: Backend, latch: Latch, source: PinSource) -> int:
    while True:
        connection = _wait(listener, None)
        if connection is None:
            continue
        with connection:
            error = _serve_one(connection, backend, latch, source)
        if error is not None:
            if isinstance(error, WrongPin):
                return _tell(listener, error, latch)
            return RETRY


def _serve_one(connection: socket.socket, backend: Backend, latch: Latch, source: PinSource) -> HsmError | None:
    """One daemon, from hello to farewell. An error means that this process is of no further use."""
    try:
        connection.settimeout(_HELLO_WITHIN)
        region = receive_region(connection)
        connection.settimeout(None)
    except (OSError, HsmError) as error:
        journal.log("warning", "no hello", text=str(error))
        if isinstance(error, Unavailable) and not isinstance(error, BadFrame):
            _refuse(connection, error)
        return None
    with region:
        try:
            _open(connection, backend, region, latch, source)
        except HsmError as error:
            journal.log("error", "cannot open the token", code=error.code, device=error.device, text=str(error))
            _refuse(connection, error)
            return error
        except OSError as error:
            journal.log("info", "the daemon has gone", text=error.strerror)
            return None
        try:
            Service(connection, backend, region).run()
        except Unavailable as error:
            return error
        except BadFrame as error:
            journal.log("error", "the daemon sent nonsense", text=str(error))
        except OSError as error:
            journal.log("info", "the daemon has gone", text=error.strerror)
    return None


def _open(connection: socket.socket, backend: Backend, region: HandOff, latch: Latch, source: PinSource) -> None:
    if isinstance(backend, EarlyLogin):
        info = backend.open(region.view, region.address, lambda: memoryview(b""))
    else:
        with latch.guarded(), source.read() as pin:
            info = backend.open(region.view, region.address, lambda: pin)
    connection.send(frames.pack_body(frames.READY, frames.info_to_wire(info)))


def _refuse(connection: socket.socket, error: HsmError) -> None:
    try:
        connection.send(frames.pack_error(frames.REFUSAL, 0, error))
    except OSError as problem:
        journal.log("info", "the daemon has gone", text=problem.strerror)
