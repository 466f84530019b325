"""The log: one line an event, to one descriptor.  Bounded, and it never holds the daemon up.

    {"time": "2026-01-31T09:30:00.123456Z", "level": "warning", "category": "hsm", "event": "worker.died", ...}

Under journald it is an entry with fields of its own (openk_hsm.journald), or, where its socket is not there, begins
with its priority (`<4>`, sd-daemon(3)); on a terminal it is made readable.

What cannot be written at once is dropped and counted (a stalled reader of the log must not stall openk),
and an event that repeats too often is written a few times and then counted; the next line that gets
through says how many were lost.  Facts are redacted by type (`render.py`).
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from socket import socket
from typing import Final

from openk_daemon.observe.render import Shown, chain, plain
from openk_hsm import journald
from openk_hsm.repeats import Repeats


class Level(IntEnum):
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


class Category(StrEnum):
    """Which part of the daemon speaks. Levels can be set for each of them."""

    REQUESTS = "requests"
    CRYPTO = "crypto"
    STORAGE = "storage"
    HSM = "hsm"
    POLICY = "policy"
    AUDIT = "audit"
    LIFECYCLE = "lifecycle"


class Form(StrEnum):
    JSON = "json"
    JOURNAL = "journal"
    TERMINAL = "terminal"


LINE_MOST: Final = 4096
"""Bytes of a line: PIPE_BUF, so that a write to a pipe that poll calls writable is whole and cannot block."""
_PRIORITY: Final = {Level.DEBUG: 7, Level.INFO: 6, Level.WARNING: 4, Level.ERROR: 3, Level.CRITICAL: 2}
_RESERVED: Final = frozenset({"time", "level", "category", "event", "error", "suppressed", "dropped"})


def form_for(descriptor: int, environment: Mapping[str, str]) -> Form:
    """How lines should look on `descriptor`, which need not be open."""
    if journald.receives(descriptor, environment):
        return Form.JOURNAL
    return Form.TERMINAL if os.isatty(descriptor) else Form.JSON


@dataclass(slots=True)
class Sink:
    """Where lines go. `dropped` counts those that found the descriptor full or broken, for good."""

    descriptor: int = 2
    form: Form = Form.JSON
    clock: Callable[[], float] = time.time
    dropped: int = 0
    journal: socket | None = None
    """journald's, for the form JOURNAL; without it, or when it does not take an entry, that goes to `descriptor`."""
    _unsaid: int = 0
    _repeats: Repeats = field(default_factory=Repeats)
    """Debug lines are exempt."""

    def write(self, level: Level, category: Category, event: str, facts: dict[str, Shown]) -> None:
        now = self.clock()
        if level > Level.DEBUG:
            suppressed = self._repeats.admit(f"{category}/{event}", now)
            if suppressed is None:
                return
            if suppressed:
                facts["suppressed"] = suppressed
        self._deliver(now, level, category, event, facts)

    def _deliver(self, now: float, level: Level, category: Category, event: str, facts: dict[str, Shown]) -> None:
        if self._unsaid:
            facts["dropped"] = self._unsaid
        if self._send_entry(now, level, category, event, facts) or self._send(
            _encode(self.form, now, level, category, event, facts)
        ):
            self._unsaid = 0
        else:
            self.dropped += 1
            self._unsaid += 1

    def tell_suppressed(self) -> None:
        """Say how many lines were kept back of events that have fallen silent: no next line would. Call it now and
        then."""
        now = self.clock()
        for name, count in self._repeats.silent(now):
            category, _, event = name.partition("/")
            facts: dict[str, Shown] = {"of": event, "suppressed": count}
            self._deliver(now, Level.WARNING, Category(category), "log.suppressed", facts)

    def _send_entry(self, now: float, level: Level, category: Category, event: str, facts: dict[str, Shown]) -> bool:
        if self.journal is None or self.form is not Form.JOURNAL:
            return False
        message = _encode(Form.JSON, now, level, category, event, facts)[:-1].decode()
        told = {"category": str(category), "event": event, **facts}
        try:
            self.journal.send(journald.entry(message, _PRIORITY[level], told, "openkd"))
        except OSError:  # full, or journald has gone
            return False
        return True

    def _send(self, line: bytes) -> bool:
        try:
            poll = select.poll()
            poll.register(self.descriptor, select.POLLOUT)
            ready = poll.poll(0)
            return bool(ready) and bool(ready[0][1] & select.POLLOUT) and os.write(self.descriptor, line) == len(line)
        except OSError:  # closed, disk full: counted by the caller, told when writing works again
            return False


def _encode(form: Form, now: float, level: Level, category: Category, event: str, facts: dict[str, Shown]) -> bytes:
    stamp = datetime.fromtimestamp(now, UTC)
    if form is Form.TERMINAL:
        words = [f"{stamp:%H:%M:%S}.{stamp.microsecond // 1000:03} {level.name:8} {category:9} {event}"]
        words += [f"{name}={_word(value)}" for name, value in facts.items()]
        return _fit(" ".join(words).encode("ascii", "backslashreplace"))
    record: dict[str, Shown] = {
        "time": f"{stamp:%Y-%m-%dT%H:%M:%S.%f}Z",
        "level": level.name.lower(),
        "category": str(category),
        "event": event,
    }
    prefix = f"<{_PRIORITY[level]}>" if form is Form.JOURNAL else ""
    line = _json_line(prefix, record | facts)
    return line if len(line) <= LINE_MOST else _shorten(prefix, record, facts)


def _json_line(prefix: str, record: Mapping[str, Shown]) -> bytes:
    return f"{prefix}{json.dumps(record)}\n".encode()


def _shorten(prefix: str, record: dict[str, Shown], facts: Mapping[str, Shown]) -> bytes:
    """Too much was said: keep the facts that fit, shortest first, so that the line stays whole JSON."""
    record["cut"] = True
    line = _json_line(prefix, record)
    for name, value in sorted(facts.items(), key=lambda fact: len(json.dumps(fact[1]))):
        longer = _json_line(prefix, record | {name: value})
        if len(longer) > LINE_MOST:
            break
        record[name] = value
        line = longer
    return line


def _word(value: Shown) -> str:
    """A fact for the terminal: text bare where that cannot mislead, all else as JSON (control characters escaped)."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value and value:
        return value
    return json.dumps(value)


def _fit(line: bytes) -> bytes:
    return line + b"\n" if len(line) < LINE_MOST else line[: LINE_MOST - 4] + b"...\n"


class Log:
    """What a room is given to speak through. Test `debugging` before building facts on the request path. Event names
    are constants of the code (`worker.died`), never made from input. All logs of a daemon share `levels`."""

    __slots__ = ("_facts", "_levels", "_sink", "category")

    def __init__(
        self, sink: Sink, category: Category, levels: dict[Category, Level], facts: dict[str, Shown] | None = None
    ) -> None:
        self.category = category
        self._sink = sink
        self._levels = levels
        self._facts = facts or {}

    @property
    def debugging(self) -> bool:
        return self._levels.get(self.category, Level.INFO) <= Level.DEBUG

    @property
    def levels(self) -> Mapping[Category, Level]:
        return {category: self._levels.get(category, Level.INFO) for category in Category}

    def set_levels(self, levels: Mapping[Category, Level]) -> None:
        """From now on, for every log of this daemon; categories that are not named stay as they are."""
        self._levels.update(levels)

    def child(self, category: Category) -> Log:
        """The same log, for another part of the daemon."""
        return Log(self._sink, category, self._levels, self._facts)

    def bind(self, **facts: object) -> Log:
        """A log that adds `facts` (a request id, a lane) to each of its lines."""
        return Log(self._sink, self.category, self._levels, self._facts | _named(facts))

    def debug(self, event: str, /, **facts: object) -> None:
        if self.debugging:
            self._write(Level.DEBUG, event, None, facts)

    def info(self, event: str, /, **facts: object) -> None:
        self._write(Level.INFO, event, None, facts)

    def warning(self, event: str, error: BaseException | None = None, /, **facts: object) -> None:
        self._write(Level.WARNING, event, error, facts)

    def error(self, event: str, error: BaseException | None = None, /, **facts: object) -> None:
        self._write(Level.ERROR, event, error, facts)

    def critical(self, event: str, error: BaseException | None = None, /, **facts: object) -> None:
        self._write(Level.CRITICAL, event, error, facts)

    def tell_suppressed(self) -> None:
        """See Sink."""
        self._sink.tell_suppressed()

    @property
    def dropped(self) -> int:
        """Lines lost because nobody took them."""
        return self._sink.dropped

    def _write(self, level: Level, event: str, error: BaseException | None, facts: dict[str, object]) -> None:
        if level < self._levels.get(self.category, Level.INFO):
            return
        shown = self._facts | _named(facts)
        if error is not None:
            shown["error"] = chain(error)
        self._sink.write(level, self.category, event, shown)


def _named(facts: dict[str, object]) -> dict[str, Shown]:
    return {f"{name}_" if name in _RESERVED else name: value for name, value in plain(facts).items()}


def open_log(
    level: Level = Level.INFO,
    overrides: Mapping[Category, Level] | None = None,
    descriptor: int = 2,
    form: Form | None = None,
) -> Log:
    """The daemon's log on standard error, in the form that suits it unless one is named. `child` gives each room its
    own category."""
    levels: dict[Category, Level] = dict.fromkeys(Category, level)
    levels.update(overrides or {})
    chosen = form or form_for(descriptor, os.environ)
    sink = Sink(descriptor, chosen, journal=journald.connect() if chosen is Form.JOURNAL else None)
    return Log(sink, Category.LIFECYCLE, levels)
