"""Token objects are made under a journal, because making one is not undone by forgetting it.

1  commit an intent (label, id)                                  crash here: nothing on the token, intent removed
2  make the token object                                         crash here: destroyed at the next start
3  commit what the object is for and remove the intent, in one unit   from here on it exists

Where 2 or 3 fails the object is destroyed, and then the intent; while its HSM is away that waits (`Intents.clear`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from openk_daemon.hierarchy.hierarchy import Hierarchy, Unfinished
from openk_daemon.hierarchy.records import FORMAT, INTENT, KEY_USAGE, KEY_VERSION, IntentBody, decode, encode
from openk_daemon.hierarchy.sealing import Draft
from openk_daemon.hsms import HOME
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import StoreError, Unit, Write
from openk_hsm.errors import HsmError, Interrupted
from openk_hsm.lane_health import LaneState
from openk_hsm.pending import drive
from openk_hsm.seam import Generated, KeySpec

T = TypeVar("T")

_TRIES: Final = 3
"""As many workers may die of one request elsewhere, too, before it is given up (`openk_hsm.dialling.Limits.deaths`)."""


def _leave(_undone: object, _error: Exception | None) -> None:
    """An undoing that failed waits."""


async def persist(draft: Callable[[], Awaitable[T]]) -> T:
    """What `draft` makes, which begins anew, under another id, when the HSM fails while it makes a token object: the
    first one, if there is any, is being destroyed meanwhile. The same id would not do: a device that finishes late what
    a dead worker asked for would have two objects of one name. Raises as `draft`, hsm.interrupted only when it comes
    again and again."""
    for _ in range(_TRIES - 1):
        try:
            return await draft()
        except Interrupted:
            continue
    return await draft()


class Intents:
    """`id_` names the object and, with `role` behind it, the intent's record. HSMs go by their names in records."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    async def make(self, spec: KeySpec, label: str, id_: bytes, hsm: str, role: bytes = b"") -> tuple[Generated, Write]:
        """The object's public half, and the write that ends the journal: commit it with what the object is for, or
        call `undo`. Raises HsmError, StoreError; then nothing stays behind, once the HSM is back: whoever asked does
        not wait for that."""
        hierarchy = self._hierarchy
        if id_ + role in hierarchy.unfinished:  # what failed before has the only name there is
            await self.undo(label, id_, hsm, role)
        drafts = [Draft(INTENT, id_ + role, 0, encode(IntentBody(FORMAT, label, id_, hsm)))]
        intent = await hierarchy.sealing.seal(hierarchy.root, drafts)
        await hierarchy.store.commit(Unit(tuple(intent)))
        try:
            generated = await hierarchy.hsms.of(hsm).generate_resident(spec, label, id_)
        except HsmError:
            drive(self.undo(label, id_, hsm, role), _leave)
            raise
        return generated, Write(INTENT, id_ + role, 1, None)

    async def undo(self, label: str, id_: bytes, hsm: str, role: bytes = b"") -> bool:
        """Destroy the object, then the intent. False when that has to wait for `clear`."""
        hierarchy = self._hierarchy
        try:
            await hierarchy.hsms.of(hsm).destroy_resident(label, id_)
            await hierarchy.store.commit(Unit((Write(INTENT, id_ + role, 1, None),)))
        except (HsmError, StoreError):
            hierarchy.unfinished[id_ + role] = Unfinished(label, id_, hsm, role)
            return False
        hierarchy.unfinished.pop(id_ + role, None)
        return True

    async def clear(self) -> int:
        """Undo what could not be undone while its HSM was away, where that is back: how many objects that were."""
        hierarchy = self._hierarchy
        count = 0
        for left in list(hierarchy.unfinished.values()):
            if hierarchy.hsms.of(left.hsm).health().state is LaneState.UP:
                count += await self.undo(left.label, left.id, left.hsm, left.role)
        return count

    async def recover(self) -> int:
        """At start, before requests: destroy what was made for what never came to be; how many intents there were.
        Intents on an HSM that is not there stay for a later start, unless it is the first. Raises
        Refusal(store.damaged), HsmError, StoreError."""
        hierarchy = self._hierarchy
        count, after = 0, b""
        while records := await hierarchy.store.query(INTENT, after=after):
            after = records[-1].id
            plains = await hierarchy.sealing.open(hierarchy.root, records)
            for record, plain in zip(records, plains, strict=True):
                body = decode(IntentBody, plain)
                if not await self._exists(body.id) and not await self._destroyed(body):
                    continue
                await hierarchy.store.commit(Unit((Write(INTENT, record.id, record.version, None),)))
                count += 1
        return count

    async def _destroyed(self, body: IntentBody) -> bool:
        """False where the object's HSM, not the first one, is not there to say."""
        try:
            await self._hierarchy.hsms.of(body.hsm).destroy_resident(body.label, body.id)
        except (HsmError, Refusal):
            if body.hsm == HOME:
                raise
            return False
        return True

    async def _exists(self, id_: bytes) -> bool:
        """Whether a key version, or a vault (its data key is counted), has this object: an intent beside it was put
        back by somebody, and must not cost it the object."""
        store = self._hierarchy.store
        return any([await store.read(kind, id_) is not None for kind in (KEY_VERSION, KEY_USAGE)])
