"""Which pages of a pool are taken: first fit over a sorted list of free spans, growing into fresh pages last.

    0 ┌───────┬──────────┬───────┬─ ─ ─ ─ ─ ─ ─ ─ ─ ┐ capacity
      │ taken │ free span│ taken │ never used so far │
      └───────┴──────────┴───────┴─ ─ ─ ─ ─ ─ ─ ─ ─ ┘
                                 ^ frontier
Pure arithmetic in pages: it touches no memory. Spans change hands rarely (a slab of slots, a large run).
"""

from __future__ import annotations

from bisect import bisect_left


class Spans:
    """Free and taken runs of pages below `pages`. Not safe for threads."""

    __slots__ = ("_free", "frontier", "pages")

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.frontier = 0
        self._free: list[tuple[int, int]] = []  # (first page, how many), sorted, never adjacent to each other

    def find(self, count: int) -> int | None:
        """Where `take(count)` would put a span; None if there is no room. Changes nothing."""
        for first, length in self._free:
            if length >= count:
                return first
        start = self._tail()
        return start if start + count <= self.pages else None

    def take(self, count: int) -> int | None:
        """The first page of a span now taken, or None. May move the frontier."""
        start = self.find(count)
        if start is None:
            return None
        index = bisect_left(self._free, (start, 0))
        if index < len(self._free) and self._free[index][0] == start:
            length = self._free[index][1]
            if length > count:
                self._free[index] = (start + count, length - count)
            else:
                del self._free[index]
        self.frontier = max(self.frontier, start + count)
        return start

    def give(self, first: int, count: int) -> None:
        """Return a span that `take` gave; neighbours are joined."""
        index = bisect_left(self._free, (first, 0))
        if index < len(self._free) and self._free[index][0] == first + count:
            count += self._free[index][1]
            del self._free[index]
        if index > 0 and sum(self._free[index - 1]) == first:
            first, before = self._free[index - 1]
            count += before
            index -= 1
            del self._free[index]
        self._free.insert(index, (first, count))

    def _tail(self) -> int:
        """Where a span that needs fresh pages begins: at a free span that ends at the frontier, or at the frontier."""
        if self._free and sum(self._free[-1]) == self.frontier:
            return self._free[-1][0]
        return self.frontier
