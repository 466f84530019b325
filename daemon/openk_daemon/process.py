"""The daemon's process: its event loop, its signals, its words to the service manager, its exit status."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, cast

import trio

from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable
from openk_daemon.config import ConfigError, Loaded
from openk_daemon.observe.bridge import install
from openk_daemon.observe.log import Form, Log, open_log
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.refusal import Refusal
from openk_daemon.settings import levels_of
from openk_daemon.store.seam import StoreError
from openk_daemon.wiring import Daemon, Ground, Traced, opened, prepare
from openk_hsm.errors import HsmError, TokenMissing, TokenUninitialised, Untrusted, WrongPin
from openk_memory.errors import LockedMemoryError

MISCONFIGURED: Final = 78
"""EX_CONFIG (sysexits.h): starting again gains nothing before an operator has changed something."""
RETRY: Final = 75
"""EX_TEMPFAIL: what is missing may be there later."""
MISTAKE: Final = 70
"""EX_SOFTWARE: a mistake in openk; the log has it whole."""

_FINAL: Final = (
    ConfigError,
    Refusal,
    AuditDamaged,
    LockedMemoryError,
    WrongPin,
    TokenMissing,
    TokenUninitialised,
    Untrusted,
    Traced,
)
_PASSING: Final = (HsmError, AuditUnavailable, StoreError)


def serve(loaded: Loaded) -> int:
    """Run until SIGTERM or SIGINT. The exit status. One thread must run."""
    config = loaded.config
    form = Form.TERMINAL if config.log.format == "text" else None
    log = open_log(overrides=levels_of(config), form=form)
    install(log)
    manager = ServiceManager()
    try:
        ground = prepare(loaded, log, manager)
        trio.run(_run, ground)
    except Exception as error:  # noqa: BLE001 - the last place: whatever it is must be said before the process ends
        return _complain(log, manager, error)
    log.info("stopped")
    return 0


async def _run(ground: Ground) -> None:
    """Signals are heeded from the first moment: a stop during a slow start is a stop."""
    try:
        async with trio.open_nursery() as nursery:
            ready = _Ready()
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                nursery.start_soon(_stay_alive, ground.manager)
                nursery.start_soon(_serve, ground, ready, nursery.cancel_scope)
                async for number in signals:
                    if number == signal.SIGHUP:
                        await _reload(ground, ready.daemon)
                        continue
                    ground.manager.stopping("draining")
                    ground.log.info("stopping", signal=signal.Signals(number).name)
                    if ready.daemon is None:
                        nursery.cancel_scope.cancel()
                    else:
                        await ready.daemon.stop()
                        ready.over.set()
                    break
    finally:
        if not ground.inherited:
            with suppress(OSError):
                ground.config.socket.path.unlink()


class _Ready:
    """The daemon, once it is one. `over`: it is drained and closes, in order: what stops last, the lane, is still
    there when the head of the audit log is signed."""

    def __init__(self) -> None:
        self.daemon: Daemon | None = None
        self.over = trio.Event()


async def _serve(ground: Ground, ready: _Ready, scope: trio.CancelScope) -> None:
    async with opened(ground) as daemon:
        ready.daemon = daemon
        # What is there now stays: the collector need not walk it again and again. What requests leave behind is
        # freed by reference counts; cycles are rare, so looking for them seldom saves an eighth of the hot path.
        gc.collect()
        gc.freeze()
        daemon.settings.start()
        ground.log.info(
            "ready", socket=str(ground.config.socket.path), hsm=daemon.token.label, policies=daemon.engine.policies
        )
        ground.manager.ready("serving")
        sys.stdout.write(f"openkd ready: {ground.config.socket.path}\n")
        sys.stdout.flush()
        await ready.over.wait()
    scope.cancel()


async def _reload(ground: Ground, daemon: Daemon | None) -> None:
    ground.manager.reloading()
    if daemon is not None:
        await daemon.reload()
    ground.manager.ready("serving")


async def _stay_alive(manager: ServiceManager) -> None:
    """The watchdog hears of us as long as the loop turns."""
    if manager.watchdog_seconds is None:
        return
    while True:
        manager.alive()
        await trio.sleep(manager.watchdog_seconds / 2)


def _complain(log: Log, manager: ServiceManager, error: Exception) -> int:
    """Say why the daemon does not run, each cause once, and choose the status."""
    causes = list(_leaves(error))
    for cause in causes:
        mistakes = cause.mistakes if isinstance(cause, ConfigError) else (str(cause),)
        for mistake in mistakes:
            if isinstance(cause, Refusal):
                log.error(
                    "not.started",
                    None,
                    code=cause.code.name,
                    text=mistake,
                    advice=cause.code.advice,
                    details=str(dict(cause.details)),
                )
            elif isinstance(cause, _FINAL + _PASSING):
                log.error("not.started", None, code=getattr(cause, "code", ""), text=mistake)
            else:
                log.critical("not.started", cause)
    manager.stopping(str(causes[0]) if causes else "stopped")
    if any(not isinstance(cause, _FINAL + _PASSING) for cause in causes):
        return MISTAKE
    final = any(
        isinstance(cause, _FINAL)
        or getattr(cause, "code", "") in {"store.foreign", "store.damaged", "daemon.misconfigured"}
        for cause in causes
    )
    return MISCONFIGURED if final else RETRY


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for part in group.exceptions:
            yield from _leaves(part)
    else:
        yield error
