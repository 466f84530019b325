"""The start: is the log what the audit key signed, and is the store what the log tells?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import trio

from openk_daemon.audit.agreement import Disagreement, disagreements
from openk_daemon.audit.checkpoint import Checkpoint, CheckpointInvalid, open_note
from openk_daemon.audit.edge import Edge
from openk_daemon.audit.examination import Examination
from openk_daemon.audit.note_key import NoteKey
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.audit.tiles import Tiles
from openk_daemon.store.seam import LocalStore, StoreError


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """The signed head and the edge to go on from; entries below `first` have not been examined yet."""

    text: str
    checkpoint: Checkpoint
    edge: Edge
    examination: Examination
    first: int
    disagreements: tuple[Disagreement, ...]


async def examine(
    store: LocalStore, tiles: Tiles, origin: str, key: NoteKey, depth: int, unaudited: Collection[str]
) -> Finding | None:
    """Examine the newest `depth` entries; None for a log that is only beginning. Raises AuditDamaged."""
    text = tiles.read_checkpoint()
    size = store.log_size()
    if text is None:
        if size:
            raise AuditDamaged(f"the log has {size} entries, and the file `checkpoint` that signs them is missing")
        return None
    try:
        checkpoint = open_note(text, origin, key)
    except CheckpointInvalid as error:
        raise AuditDamaged(f"the audit log's signed head cannot be trusted: {error}") from error
    examination = Examination(tiles, store, checkpoint)
    first = max(0, checkpoint.size - depth) // 256 * 256
    for _ in examination.entries_from(first):
        await trio.lowlevel.checkpoint()
    found = await find_disagreements(store, first, unaudited)
    edge = Edge([list(row) for row in examination.edge.rows])
    return Finding(text, checkpoint, edge, examination, first, tuple(found))


async def find_disagreements(store: LocalStore, first: int = 0, unaudited: Collection[str] = ()) -> list[Disagreement]:
    """Records of the store which are not what the log, from entry `first` on, says was written last. Nothing
    may be committed meanwhile. Raises AuditDamaged where store or log cannot be read."""
    found: list[Disagreement] = []
    try:
        for disagreement in disagreements(store, first, unaudited):
            if disagreement is None:
                await trio.lowlevel.checkpoint()
            else:
                found.append(disagreement)
    except StoreError as error:
        raise AuditDamaged(f"the store cannot be compared with the log: {error}") from error
    return found
