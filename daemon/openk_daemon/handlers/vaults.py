"""vault.create, vault.list, vault.describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_daemon.call import After, Call, Handler, Outcome
from openk_daemon.hierarchy.hierarchy import Hierarchy, rfc3339
from openk_daemon.hierarchy.names import check_vault
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.hierarchy.turns import Turns
from openk_daemon.vaults.registry import Vaults

LIST_USUAL: Final = 100


class VaultHandlers:
    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._vaults = Vaults(hierarchy)
        self._turns = Turns()

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "vault.create": refusing(self.create),
            "vault.list": refusing(self.list_vaults),
            "vault.describe": refusing(self.describe),
        }

    async def create(self, call: Call) -> Outcome:
        name = call.arguments.text("vault")
        await self._turns.take(name)
        try:
            new = await self._vaults.draft(name)
        except BaseException:
            self._turns.give(name)
            raise
        answer = {"vault": name, "created": rfc3339(new.keys.created)}
        steps = (After(lambda: self._hierarchy.keep(new.keys)), self._turns.ending(name))
        return Outcome((answer,), new.writes, after=steps)

    async def list_vaults(self, call: Call) -> Outcome:
        arguments = call.arguments
        bodies = await self._vaults.page(arguments.optional_text("after"), arguments.integer("limit", LIST_USUAL))
        return Outcome(({"vaults": [{"vault": body.name, "created": rfc3339(body.created)} for body in bodies]},))

    async def describe(self, call: Call) -> Outcome:
        vault = await self._hierarchy.vault(check_vault(call.arguments.text("vault")))
        return Outcome(({"vault": vault.name, "created": rfc3339(vault.created)},))
