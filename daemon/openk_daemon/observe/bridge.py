"""What Python's own `logging` is told (by libraries, and by rooms that speak through it) as lines of our log."""

from __future__ import annotations

import logging
from typing import Final

from openk_daemon.observe.log import Category, Log
from openk_daemon.observe.render import cut, show

_CATEGORIES: Final = {
    "openk_daemon.audit": Category.AUDIT,
    "openk_daemon.store": Category.STORAGE,
    "openk_daemon.policy": Category.POLICY,
    "openk_daemon.identity": Category.REQUESTS,
    "openk_hsm": Category.HSM,
}


class Bridge(logging.Handler):
    """Arguments of a record are redacted by type before they are put into its text; errors become chains."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.DEBUG)
        self._logs = {prefix: log.child(category) for prefix, category in _CATEGORIES.items()}
        self._other = log

    def emit(self, record: logging.LogRecord) -> None:
        log = next((log for prefix, log in self._logs.items() if record.name.startswith(prefix)), self._other)
        error = record.exc_info[1] if record.exc_info else None
        event, text = f"{record.name.removeprefix('openk_daemon.')}:{record.lineno}", cut(_text(record))
        if record.levelno >= logging.ERROR:
            log.error(event, error, text=text)
        elif record.levelno >= logging.WARNING:
            log.warning(event, error, text=text)
        elif record.levelno >= logging.INFO:
            log.info(event, text=text)
        else:
            log.debug(event, text=text)


def _text(record: logging.LogRecord) -> str:
    """The message with its arguments; without them where they do not fit (`%d` and a redacted value)."""
    message = record.msg if isinstance(record.msg, str) else str(show(record.msg))
    if not record.args:
        return message
    arguments = record.args.values() if isinstance(record.args, dict) else record.args
    try:
        return message % tuple(show(argument) for argument in arguments)
    except (TypeError, ValueError):
        return message


def install(log: Log, level: int = logging.INFO) -> Bridge:
    """Send everything `logging` is told from `level` on to `log`, instead of anywhere else. Call it once."""
    bridge = Bridge(log)
    root = logging.getLogger()
    root.handlers = [bridge]
    root.setLevel(level)
    logging.raiseExceptions = False
    return bridge
