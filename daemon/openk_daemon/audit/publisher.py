"""Brings the log from the store into the tiles and gets its head signed. Off the request path.

    entries in the store ──hash──▶ edge in memory ──▶ tiles on disk, durable ──▶ root, signed in the HSM ──▶ checkpoint

Hashing happens on the trio thread in slices with pauses (a thread would fight it for the interpreter lock);
files are written and synced on a thread, which holds the lock for microseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from openk_daemon.audit.checkpoint import Checkpoint, CheckpointInvalid, seal
from openk_daemon.audit.edge import WIDTH, Edge
from openk_daemon.audit.examination import Log, read_entries
from openk_daemon.audit.growing import Growing, Place
from openk_daemon.audit.note_key import NoteKey
from openk_daemon.audit.tiles import CHECKPOINT, File, Tiles
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending, settle

SLICE: Final = 128
"""Entries hashed in one go: about 250 microseconds."""
PAUSE: Final = 0.001
"""Seconds between two slices. A mere turn of the loop is no pause: the commit thread would not get the interpreter lock
until all is hashed (seen: 7 ms), and every client waits for that thread."""
CHUNK: Final = 1024
"""Entries read from the store at a time: the most that one of its rows holds."""
FILES: Final = 64
"""Files kept in memory before they are written."""

_log = logging.getLogger(__name__)


class NotPublished(Exception):
    """The disk or the HSM did not do its part; what is in the store is not touched, the next try goes on."""


class Publisher:
    """One at a time calls `publish`. `checkpoint` and `text` are the newest signed head."""

    def __init__(
        self, log: Log, tiles: Tiles, origin: str, key: NoteKey, sign: Callable[[bytes], Pending[bytes]]
    ) -> None:
        """`key`: the audit key. `sign`: what the HSM answers when it signs the given bytes with it."""
        self._log = log
        self._tiles = tiles
        self._origin = origin
        self._key = key
        self._sign = sign
        self._growing = Growing()
        self._files: list[File] = []  # filled tiles and bundles that are not on disk yet
        self._partial: list[Place] = []  # under the checkpoint
        self._replaced: list[Place] = []  # under the one before: whoever reads it may go on
        self.checkpoint = Checkpoint(origin, 0, Edge().root())
        self.text = ""

    def resume(self, text: str, checkpoint: Checkpoint, edge: Edge) -> None:
        """Go on from an examined checkpoint. Raises AuditDamaged when its last entries cannot be read."""
        self.text, self.checkpoint = text, checkpoint
        width = edge.size % WIDTH
        self._growing = Growing(edge, read_entries(self._log, edge.size - width, width))
        _, self._partial = self._growing.unfinished()

    async def publish(self) -> None:
        """Sign a checkpoint over all that is committed. Raises NotPublished, AuditDamaged."""
        size = self._log.log_size()
        if self.text and size == self.checkpoint.size:
            return
        await self._grow(size)
        files, kept = self._growing.unfinished()
        await self._write(files)
        edge = self._growing.edge
        checkpoint = Checkpoint(self._origin, edge.size, edge.root())
        text = await self._seal(checkpoint)
        await self._write([File(CHECKPOINT, text.encode())])
        self.checkpoint, self.text = checkpoint, text
        await self._remove_replaced(kept)

    async def _grow(self, size: int) -> None:
        growing = self._growing
        while growing.edge.size < size or self._files:
            if len(self._files) >= FILES or growing.edge.size == size:
                files, count = list(self._files), len(self._files)
                await self._write(files)
                del self._files[:count]
                continue
            entries = read_entries(self._log, growing.edge.size, min(CHUNK, size - growing.edge.size))
            for at in range(0, len(entries), SLICE):
                self._files += growing.take(entries[at : at + SLICE])
                await trio.sleep(PAUSE)

    async def _write(self, files: list[File]) -> None:
        if not files:
            return
        try:
            await trio.to_thread.run_sync(self._tiles.write, files)
        except OSError as error:
            raise NotPublished(f"the audit log's tiles cannot be written: {error.strerror}") from error

    async def _seal(self, checkpoint: Checkpoint) -> str:
        async def ask() -> bytes:
            return await self._sign(checkpoint.body())

        try:
            return seal(checkpoint, self._key, await settle(ask()))
        except HsmError as error:
            raise NotPublished(f"the HSM did not sign the head of the audit log: {error}") from error
        except CheckpointInvalid as error:
            raise NotPublished(f"the HSM signed with another key than the audit key: {error}") from error

    async def _remove_replaced(self, kept: list[Place]) -> None:
        """Forget the unfinished tiles of the checkpoint before the last, and no file that is still in use."""
        used = {*kept, *self._partial}
        gone = [tile for tile in self._replaced if tile not in used]
        self._replaced, self._partial = self._partial, kept
        await self._remove(gone)

    async def finish(self) -> None:
        """Forget what only the checkpoint before the newest needed: nothing will replace that one."""
        used = set(self._partial)
        gone = [tile for tile in self._replaced if tile not in used]
        self._replaced = []
        await self._remove(gone)

    async def _remove(self, gone: list[Place]) -> None:
        def remove() -> None:
            for level, number, width in gone:
                self._tiles.remove_partial(level, number, width)

        if gone:
            await trio.to_thread.run_sync(remove)
