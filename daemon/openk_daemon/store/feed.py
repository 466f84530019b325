"""How much of the change feed is kept: the newest units, and a few more, so that old ones go in pieces.

oldest … ──── excess ────│──── kept ────── newest
└ once BATCH of them: PIECE at most go at once
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 1_000_000
"""Units, where nothing else is said."""
BATCH: Final = 256
"""Units beyond those that gather before any goes: it costs a commit of its own."""
PIECE: Final = 1024
"""Units that go at once, at most: whoever wants to commit waits no longer than for that."""


def next_oldest(oldest: int, newest: int, kept: int) -> int:
    """The sequence of the oldest unit that is to be left now; `oldest` where none is to go."""
    excess = newest + 1 - oldest - kept
    return oldest if excess < BATCH else oldest + min(excess, PIECE)
