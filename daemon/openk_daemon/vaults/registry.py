"""Vaults: made, listed, described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.intents import Intents, persist
from openk_daemon.hierarchy.names import check_vault
from openk_daemon.hierarchy.records import FORMAT, VAULT, VaultBody, encode
from openk_daemon.hierarchy.sealing import Draft
from openk_daemon.hierarchy.vault_keys import DATA, KW, MAC, VaultKeys, key_context, object_label
from openk_daemon.hsms import root_of
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Write
from openk_hsm.errors import HsmError
from openk_hsm.seam import Generated, KeySpec

_ID: Final = 16  # bytes
_PAGE: Final = 1000  # records a query


@dataclass(frozen=True, slots=True, eq=False)
class NewVault:
    """A vault that is not durable yet: commit `writes`, then give `keys` to `Hierarchy.keep`."""

    keys: VaultKeys
    writes: tuple[Write, ...]
    made: tuple[str, ...] = ()
    """Roles of keys that are token objects now: give the vault to `Vaults.undo` when the commit fails."""


class Vaults:
    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._intents = Intents(hierarchy)

    async def draft(self, name: str, hsm: str | None = None) -> NewVault:
        """Three fresh keys, wrapped by the root of `hsm` (a configured name; the first HSM's for None); token objects
        where that HSM wraps none. Raises Refusal: vault.exists, request.invalid."""
        hierarchy = self._hierarchy
        home = hierarchy.hsms.recorded(hsm)
        root = root_of(home)
        record = await hierarchy.vault_id(check_vault(name))
        if await hierarchy.store.read(VAULT, record) is not None:
            raise Refusal("vault.exists", f"a vault {name} exists")
        token = await hierarchy.hsms.of(home).info()
        if token.resident_vaults:

            async def draft() -> NewVault:
                fresh = await hierarchy.random(_ID)
                body = VaultBody(FORMAT, name, fresh, hierarchy.now(), b"", b"", b"", home)
                return await self._draft_resident(body, record)

            return await persist(draft)
        id_ = await hierarchy.random(_ID)
        waiting = [
            hierarchy.lane.generate(spec, root, key_context(id_, role))
            for spec, role in ((KW, "kw"), (KeySpec(token.data, DATA.purpose), "data"), (MAC, "mac"))
        ]
        kw, data, mac = [_blob(generated) for generated in [await pending for pending in waiting]]
        body = VaultBody(FORMAT, name, id_, hierarchy.now(), kw, data, mac, home)
        keys = hierarchy.assemble(body)
        usage = await hierarchy.sealing.first_usage(keys.sealer)
        writes = await hierarchy.sealing.seal(hierarchy.root, [Draft(VAULT, record, 0, encode(body))])
        return NewVault(keys, (*writes, usage))

    async def _draft_resident(self, body: VaultBody, record: bytes) -> NewVault:
        hierarchy = self._hierarchy
        keys = hierarchy.assemble(body)
        done: list[Write] = []
        made: list[str] = []
        id_ = keys.sealer.usage
        try:
            for role, handle in (("data", keys.sealer.key), ("mac", keys.wrapper.mac)):
                _, end = await self._intents.make(handle.spec, object_label(role, id_), id_, body.hsm, role.encode())
                made.append(role)
                done.append(end)
            usage = await hierarchy.sealing.first_usage(keys.sealer)
            writes = await hierarchy.sealing.seal(hierarchy.root, [Draft(VAULT, record, 0, encode(body))])
        except Exception:
            await self.undo(keys, made)
            raise
        return NewVault(keys, (*writes, usage, *done), tuple(made))

    async def undo(self, keys: VaultKeys, made: Sequence[str]) -> None:
        """Destroy the token objects of a vault that did not become durable; what cannot be destroyed now is at the next
        start."""
        id_ = keys.sealer.usage
        for role in made:
            await self._intents.undo(object_label(role, id_), id_, keys.hsm, role.encode())

    async def page(self, after: str | None, limit: int) -> list[VaultBody]:
        """In the order of their keyed digests: no order of names, but a stable one that pages well."""
        behind = b"" if after is None else await self._hierarchy.vault_id(check_vault(after))
        records = await self._hierarchy.store.query(VAULT, after=behind, limit=min(max(limit, 1), _PAGE))
        return await self._hierarchy.bodies(list(records))


def _blob(generated: Generated) -> bytes:
    if generated.blob is None:
        raise HsmError("the HSM gave no wrapped key")
    return generated.blob
