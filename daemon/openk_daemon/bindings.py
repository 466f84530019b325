"""A store is bound to its HSMs: vault keys open under the root keys of one token only, so another token behind the same
name is a mistake that must be told before anything is made with it.

    record      kind "hsm-identity", id: the HSM's name as records have it (empty for the first)
    body        an identity: a token's (32 bytes: its serial and root keys) or a group's (33: its root keys)

A store that was made with one HSM may become that of a group which has it as a member; never the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from openk_daemon.hsms import HOME, Hsms
from openk_daemon.store.seam import Foreign, Record, Store, Write
from openk_hsm.errors import HsmError
from openk_hsm.group import GroupLane
from openk_hsm.kinship import is_group_identity
from openk_hsm.lane import WorkerLane
from openk_hsm.pending import Flow, settle
from openk_hsm.seam import TokenInfo

IDENTITY: Final = "hsm-identity"
GATHER: Final = 10.0
"""Seconds that a group's members get to come, before a store of one of them is told that it has none of its own."""
_LOOK: Final = 1.0
"""Seconds between looks whether an HSM that was not there at the start has come."""

AnyLane = WorkerLane | GroupLane
Commit = Callable[[str, Write], Flow[None]]
"""Makes an audit entry and a write durable together."""


class Bindings:
    """What the store says, read before lanes begin to serve."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records

    def expect(self, name: str, lane: AnyLane) -> None:
        """Hold the lane to what the store says, where its kind of identity is there: not so the first start of a group
        that takes over a single HSM's store."""
        record = self._records.get(name)
        if record is not None and is_group_identity(record.body) == isinstance(lane, GroupLane):
            lane.expect(record.body)

    async def due(self, name: str, lane: AnyLane, token: TokenInfo) -> Write | None:
        """What to write so that the store is bound to the HSM of that name (as records have it), which says `token`;
        None when it is already. Raises Foreign when it is bound to another."""
        record = self._records.get(name)
        if record is None:
            return Write(IDENTITY, name.encode(), 0, token.identity)
        if record.body == token.identity:
            return None
        if isinstance(lane, GroupLane) and not is_group_identity(record.body):
            await lane.gathered(GATHER)
            if record.body in lane.identities:
                return Write(IDENTITY, record.id, record.version, token.identity)
        if is_group_identity(record.body) and not isinstance(lane, GroupLane):
            raise Foreign("this state folder was made with a group of HSMs: keep the group, with one member if need be")
        raise Foreign("this state folder was made with another HSM token: use that token, or another state folder")

    async def bind_others(self, hsms: Hsms, lanes: Mapping[str, AnyLane], commit: Commit) -> None:
        """Bind the store to every HSM but the first, once that is there."""
        async with trio.open_nursery() as nursery:
            for name, lane in lanes.items():
                if name != hsms.home:
                    nursery.start_soon(self._bind, name, lane, commit)

    async def _bind(self, name: str, lane: AnyLane, commit: Commit) -> None:
        """An HSM that is not the one it was is refused by its lane, which says so; the others serve."""
        while True:
            try:
                due = await self.due(name, lane, await lane.ready())
            except HsmError:
                await trio.sleep(_LOOK)
                continue
            except Foreign:
                lane.expect(self._records[name].body)
                return
            if due is not None:
                await settle(commit(f'{{"event":"store.bound","hsm":"{name}"}}', due))
            return


async def read_bindings(store: Store, configured: Mapping[str, object]) -> Bindings:
    """Raises StoreError."""
    records: dict[str, Record] = {}
    for name in (HOME, *configured):
        record = await settle(_read(store, name))
        if record is not None:
            records[name] = record
    return Bindings(records)


async def _read(store: Store, name: str) -> Record | None:
    return await store.read(IDENTITY, name.encode())
