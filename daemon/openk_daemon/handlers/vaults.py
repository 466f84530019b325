"""vault.create, vault.list, vault.describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_daemon.call import After, Call, Handler, Outcome, Plain
from openk_daemon.hierarchy.hierarchy import Hierarchy, rfc3339
from openk_daemon.hierarchy.names import check_vault
from openk_daemon.hierarchy.records import VaultBody
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.hierarchy.turns import Turns
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.vaults.registry import Vaults
from openk_hsm.pending import drive

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
        with self._turns.kept(name):
            new = await self._vaults.draft(name, call.arguments.optional_text("hsm"))
        answer = self._describe(new.keys)

        def forget() -> None:
            if new.made:
                drive(self._vaults.undo(new.keys, new.made), lambda _undone, _error: None)

        steps = (After(lambda: self._hierarchy.keep(new.keys), forget), self._turns.ending(name))
        return Outcome((answer,), new.writes, after=steps)

    async def list_vaults(self, call: Call) -> Outcome:
        arguments = call.arguments
        bodies = await self._vaults.page(arguments.optional_text("after"), arguments.integer("limit", LIST_USUAL))
        return Outcome(({"vaults": [self._describe(body) for body in bodies]},))

    async def describe(self, call: Call) -> Outcome:
        vault = await self._hierarchy.vault(check_vault(call.arguments.text("vault")))
        return Outcome((self._describe(vault),))

    def _describe(self, vault: VaultKeys | VaultBody) -> dict[str, Plain]:
        shown = self._hierarchy.hsms.shown(vault.hsm)
        return {"vault": vault.name, "created": rfc3339(vault.created), "hsm": shown}
