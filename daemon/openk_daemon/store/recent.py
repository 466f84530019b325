"""The newest entries of the log, kept as they were written: whoever hashes them need not ask the database for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice


class Recent:
    """At most `most` entries, which follow one another up to the log's end."""

    __slots__ = ("_end", "_entries")

    def __init__(self, most: int) -> None:
        self._entries: deque[bytes] = deque(maxlen=most)
        self._end = 0

    def add(self, first: int, entries: Sequence[bytes]) -> None:
        """`entries` have become durable, numbered from `first`. A gap forgets what is before it."""
        if first != self._end:
            self._entries.clear()
        self._entries.extend(entries)
        self._end = first + len(entries)

    def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` entries from `first`; none where the first is not here."""
        start = self._end - len(self._entries)
        if first < start or limit < 1:
            return []
        return list(islice(self._entries, first - start, first - start + limit))
