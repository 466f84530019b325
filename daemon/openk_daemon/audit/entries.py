"""How an audit record becomes a log entry: the time and the writes are put in by the ledger. Pure.

    {"time":"2026-01-02T03:04:05.678901Z", …what the pipeline said…,
     "writes":[{"kind":"key","id":"<hex>","version":2,"sha256":"<hex of the body's hash; null: deleted>"}]}

This runs for every request: strings are put together, nothing is parsed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import cast

from openk_daemon.store.seam import Write


class Stamp:
    """The log's clock: UTC with microseconds (RFC 3339), and never the same or an earlier time twice, even
    when the machine's clock is set back."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` gives nanoseconds since 1970."""
        self._clock = clock
        self._last = 0  # microseconds
        self._second = -1
        self._prefix = ""

    def stamp(self, entry: str) -> str:
        """`entry`, a JSON object with at least one member, with the time as its first."""
        now = self._clock() // 1000
        if now <= self._last:
            now = self._last + 1
        self._last = now
        second = now // 1_000_000
        if second != self._second:
            self._second = second
            self._prefix = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))
        return f'{self._prefix}{now % 1_000_000:06d}Z",{entry[1:]}'

    def continue_after(self, entry: bytes) -> None:
        """Let the next time be later than that of `entry`, the newest of the log. Raises ValueError when
        `entry` has no time."""
        try:
            record: object = json.loads(entry)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        told = cast("dict[str, object]", record).get("time") if isinstance(record, dict) else None
        moment = datetime.fromisoformat(str(told))
        self._last = max(self._last, int(moment.timestamp()) * 1_000_000 + moment.microsecond)


def tell_writes(entry: str, writes: Sequence[Write]) -> str:
    """`entry` with `writes` as its last member."""
    told = ",".join([_tell(write) for write in writes])
    return f'{entry[:-1]},"writes":[{told}]}}'


def _tell(write: Write) -> str:
    body = write.body
    digest = "null" if body is None else f'"{sha256(body).hexdigest()}"'
    return (
        f'{{"kind":{json.dumps(write.kind)},"id":"{write.id.hex()}","version":{write.expected + 1},"sha256":{digest}}}'
    )
