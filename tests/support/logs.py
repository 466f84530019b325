"""The daemon's log in tests: a real one, whose lines are read back as what they say.

    with captured() as logged:
        part = Part(logged.log)
        ...
        logged.one("worker.died", level="warning", lane="main")   # exactly one such line; returned whole
        logged.none("request.failed")
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from openk_daemon.observe.log import Form, Level, Log, open_log

Line = dict[str, object]


@dataclass
class Captured:
    """`log` writes at debug into a file of its own, which nobody else sees."""

    _file: int = field(default_factory=lambda: os.memfd_create("log"))
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = open_log(Level.DEBUG, descriptor=self._file, form=Form.JSON)

    def text(self) -> str:
        return os.pread(self._file, 1 << 24, 0).decode()

    def lines(self, event: str | None = None, **facts: object) -> list[Line]:
        """Those of the event, or all, whose facts are at least these."""
        found: list[Line] = [json.loads(line) for line in self.text().splitlines()]
        return [
            line
            for line in found
            if event in (None, line["event"]) and all(line.get(name, _ABSENT) == fact for name, fact in facts.items())
        ]

    def one(self, event: str, **facts: object) -> Line:
        """The only such line. AssertionError, with all of the log, where there is none or more than one."""
        found = self.lines(event, **facts)
        assert len(found) == 1, f"{len(found)} lines of {event} with {facts} in:\n{self.text()}"
        return found[0]

    def none(self, event: str, **facts: object) -> None:
        found = self.lines(event, **facts)
        assert not found, found

    def close(self) -> None:
        os.close(self._file)


_ABSENT = object()


@contextmanager
def captured() -> Generator[Captured]:
    made = Captured()
    try:
        yield made
    finally:
        made.close()
