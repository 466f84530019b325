"""Resident keys: token objects, made under the journal of `hierarchy.intents`."""

from __future__ import annotations

from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.intents import Intents
from openk_daemon.keys.keyring import object_label
from openk_daemon.store.seam import Write
from openk_hsm.seam import Generated, KeySpec


class Residents:
    def __init__(self, hierarchy: Hierarchy) -> None:
        self._intents = Intents(hierarchy)
        self.recover = self._intents.recover
        """At start, before requests; for vaults' token objects too."""
        self.clear = self._intents.clear
        """Every now and then; likewise."""

    async def make(self, spec: KeySpec, id_: bytes, hsm: str) -> tuple[Generated, Write]:
        """On the HSM of that name, as records have it. As `Intents.make`."""
        return await self._intents.make(spec, object_label(id_), id_, hsm)

    async def undo(self, id_: bytes, hsm: str) -> bool:
        """As `Intents.undo`."""
        return await self._intents.undo(object_label(id_), id_, hsm)
