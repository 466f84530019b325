"""Which entries of the device's log are commands of ours, and which of our commands are not in it.

Usually each entry is the next command, and looking once is enough.  Where it is not (commands whose answer was lost,
which may or may not have been done; other users of the device), the cheapest explanation in order is looked for:
an entry that is nobody's and a command that is missing cost most, a command that was answered and may be missing costs
a little, one that was not answered nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from openk_hsm.yubihsm.entries import Entry, Sent, fits

_READING: Final = frozenset({0x4D, 0x67})
"""GET LOG ENTRIES and SET LOG INDEX: logged after the log was read, if at all."""
_WRONG: Final = 10_000
_ODD: Final = 1


@dataclass(slots=True)
class Explained:
    """`strangers`: entries that are not ours. `missing`: commands that should be there. `open`: those that may still
    come, and have until the log is read again."""

    strangers: list[Entry] = field(default_factory=list[Entry])
    missing: list[Sent] = field(default_factory=list[Sent])
    open: list[Sent] = field(default_factory=list[Sent])


def explain(sent: Sequence[Sent], entries: Sequence[Entry]) -> Explained:
    """All that was sent before the log was read, and all that is new in it, both in order."""
    found = Explained()
    last = -1
    taken: set[int] = set()
    if _as_expected(sent, entries):
        last = len(entries) - 1
        taken.update(range(len(entries)))
    else:
        for at, entry in _cheapest(sent, entries):
            if at is None:
                found.strangers.append(entry)
            else:
                last = at
                taken.add(at)
    for at, one in enumerate(sent):
        if at in taken:
            continue
        if _must_be_there(one):
            found.missing.append(one)
        elif at > last and not one.late:  # a later command that is there shows that this one was never done
            one.late = True
            found.open.append(one)
    return found


def _must_be_there(sent: Sent) -> bool:
    return sent.answered is not None and sent.sure and (sent.late or sent.command not in _READING)


def _price(sent: Sent) -> int:
    """Of saying that it is not in the log."""
    if _must_be_there(sent):
        return _WRONG
    return 0 if sent.answered is None else _ODD


def _as_expected(sent: Sequence[Sent], entries: Sequence[Entry]) -> bool:
    if len(sent) < len(entries) or any(_must_be_there(one) for one in sent[len(entries) :]):
        return False
    return all(fits(entry, one) for entry, one in zip(entries, sent, strict=False))


def _cheapest(sent: Sequence[Sent], entries: Sequence[Entry]) -> list[tuple[int | None, Entry]]:
    """For each entry the index of its command, or None. Cost of the rest, from the ends backwards; at most some
    hundred commands and 62 entries."""
    rows, columns = len(sent), len(entries)
    costs = [[_WRONG * (columns - column) for column in range(columns + 1)] for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        skipped = _price(sent[row])
        here, below = costs[row], costs[row + 1]
        here[columns] = below[columns] + skipped
        for column in range(columns - 1, -1, -1):
            best = min(below[column] + skipped, here[column + 1] + _WRONG)
            if fits(entries[column], sent[row]):
                best = min(best, below[column + 1])
            here[column] = best
    pairs: list[tuple[int | None, Entry]] = []
    row = 0
    for column, entry in enumerate(entries):
        mine = False
        while row < rows:
            mine = _belongs(costs, sent, row, column, entry)
            if mine or costs[row][column] == costs[row][column + 1] + _WRONG:
                break
            row += 1  # this command is not in the log
        pairs.append((row if mine else None, entry))
        row += mine
    return pairs


def _belongs(costs: list[list[int]], sent: Sequence[Sent], row: int, column: int, entry: Entry) -> bool:
    """Whether taking the entry for that command is (one of) the cheapest."""
    return fits(entry, sent[row]) and costs[row][column] == costs[row + 1][column + 1]
