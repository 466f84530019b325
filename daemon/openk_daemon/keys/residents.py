"""Resident keys: token objects, made under a journal, because making one is not undone by forgetting it.

1  commit an intent (label, id)                                  crash here: nothing on the token, intent removed
2  make the token object                                         crash here: destroyed at the next start
3  commit the key's records and remove the intent, in one unit   from here on the key exists
"""

from __future__ import annotations

from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.records import FORMAT, INTENT, KEY_VERSION, IntentBody, decode, encode
from openk_daemon.hierarchy.sealing import Draft
from openk_daemon.keys.keyring import object_label
from openk_daemon.store.seam import StoreError, Unit, Write
from openk_hsm.errors import HsmError
from openk_hsm.seam import Generated, KeySpec


class Residents:
    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    async def make(self, spec: KeySpec, id_: bytes, hsm: str) -> tuple[Generated, Write]:
        """On the HSM of that name, as records have it. The object's public half, and the write that ends the journal:
        commit it with the key's records, or call `undo`. Raises HsmError, StoreError; then nothing stays behind, at the
        latest after the next start."""
        hierarchy = self._hierarchy
        label = object_label(id_)
        drafts = [Draft(INTENT, id_, 0, encode(IntentBody(FORMAT, label, id_, hsm)))]
        intent = await hierarchy.sealing.seal(hierarchy.root, drafts)
        await hierarchy.store.commit(Unit(tuple(intent)))
        try:
            generated = await hierarchy.hsms.of(hsm).generate_resident(spec, label, id_)
        except HsmError:
            await self.undo(id_, hsm)
            raise
        return generated, Write(INTENT, id_, 1, None)

    async def undo(self, id_: bytes, hsm: str) -> bool:
        """Destroy the object, then the intent. False when that has to wait for `recover`."""
        hierarchy = self._hierarchy
        try:
            await hierarchy.hsms.of(hsm).destroy_resident(object_label(id_), id_)
            await hierarchy.store.commit(Unit((Write(INTENT, id_, 1, None),)))
        except (HsmError, StoreError):
            return False  # the intent is still there
        return True

    async def recover(self) -> int:
        """At start, before requests: destroy what was made for keys that never came to be; how many intents there
        were. Raises Refusal(store.damaged), HsmError, StoreError."""
        hierarchy = self._hierarchy
        count = 0
        while records := await hierarchy.store.query(INTENT):
            plains = await hierarchy.sealing.open(hierarchy.root, records)
            for record, plain in zip(records, plains, strict=True):
                body = decode(IntentBody, plain)
                # An intent beside a finished key was put back by somebody: it must not cost the key its object.
                if await hierarchy.store.read(KEY_VERSION, body.id) is None:
                    await hierarchy.hsms.of(body.hsm).destroy_resident(body.label, body.id)
                await hierarchy.store.commit(Unit((Write(INTENT, record.id, record.version, None),)))
                count += 1
        return count
