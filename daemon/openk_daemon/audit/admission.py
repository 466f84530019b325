"""Whether requests may be admitted: only while their records can be written, and a little longer than that."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from openk_daemon.store.seam import StoreError

GUARD: Final = 1.0
"""Seconds between two looks at the free space, and between two tries while the store cannot commit."""

Record = Callable[[Mapping[str, str | int]], Awaitable[object]]

_log = logging.getLogger(__name__)


class Admission:
    """`reason` is None while requests are admitted, else a sentence for the operator.

    A disk that fills up stops admission at `reserve` free bytes, so that the log can still tell of it. A store
    that cannot commit stops admission until a record, which says how long that was, could be written."""

    def __init__(self, folder: str, reserve: int, record: Record) -> None:
        """`record` writes an audit record of the log's own and raises StoreError where that fails."""
        self.reason: str | None = "the audit log has not been examined yet"
        self._folder = folder
        self.reserve = reserve
        """Free bytes below which nothing is admitted."""
        self._record = record
        self._since = 0.0
        self._final = False

    def open(self) -> None:
        """Admit: the log was examined."""
        self.reason = None

    def close(self, reason: str) -> None:
        """Admit nothing any more."""
        self.reason, self._final = reason, True

    def pause(self, reason: str) -> None:
        """Admit nothing until `look` finds that all is well."""
        if self.reason is None:
            self.reason, self._since = reason, time.monotonic()
            _log.error("no request is admitted: %s", reason)

    def short_of_space(self) -> str | None:
        """Why the log should not grow now. Raises OSError where the folder cannot be asked."""
        found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        if free < self.reserve:
            return f"{free} bytes are free where the audit log is kept, and {self.reserve} are held in reserve"
        return None

    async def watch(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await trio.sleep(GUARD)
            await self.look()

    async def look(self) -> None:
        """Pause when space is short; end a pause when it is not and a record can be written."""
        try:
            shortage = self.short_of_space()
        except OSError as error:
            shortage = f"the folder of the audit log cannot be looked at: {error.strerror}"
        try:
            if self._final:
                return
            if shortage is None and self.reason is not None:
                seconds = int(time.monotonic() - self._since)
                await self._record({"event": "audit.resumed", "reason": self.reason, "seconds": seconds})
                _log.warning("requests are admitted again after %d seconds", seconds)
                self.reason = None if not self._final else self.reason
            elif shortage is not None and self.reason is None:
                self.pause(shortage)
                await self._record({"event": "audit.paused", "reason": shortage})
        except StoreError as error:
            _log.error("the audit log cannot be written: %s", error)
