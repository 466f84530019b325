"""Which keys are due: of the keys at hand from memory, of all others from their records, a bounded number at a time.

A look loads no key into the HSM and pushes none that is in use off its shelf. What it opens are records, which hold no
key in clear: no locked memory is taken.

    Place   where a walk over all keys stands: vault by vault, in the order of the store
    Leg     what one step of it found, and where to go on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy.records import (
    KEY,
    KEY_USAGE,
    KEY_VERSION,
    VAULT,
    KeyBody,
    KeyUsageBody,
    KeyVersionBody,
    RecordError,
    VaultBody,
    decode,
)
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.state import KeyState, KeyVersion, version_id
from openk_daemon.keys.suites import Protection
from openk_daemon.refusal import Refusal
from openk_daemon.rotation import COUNTED, Due, Facts, Rule, judge
from openk_daemon.store.seam import Record
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending
from openk_hsm.roots import FIRST_FREE_SLOT

PAGE: Final = 25
"""Keys whose records are read and opened beside each other: between two pages clients are served."""


@dataclass(frozen=True, slots=True)
class Place:
    """`vault`: id of the record of the vault under way. `key`: of the last key that was looked at; None behind the
    vault's last one."""

    vault: bytes = b""
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    version: int
    due: Due


@dataclass(frozen=True, slots=True)
class Leg:
    """`found`: keys that are due now. `looked`: how many were looked at. `place`: where to go on; None at the end.
    `trouble`: why a vault was left out."""

    found: Sequence[Found]
    looked: int
    place: Place | None
    trouble: Exception | None = None


@dataclass(slots=True)
class _Facing:
    """A key that rules concern, and which of the records that are read for it are whose."""

    name: str
    body: KeyBody
    state: KeyState | None
    version: int | None = None
    usage: int | None = None


class Survey:
    """`rules`: those in force."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.rules: tuple[Rule, ...] = ()

    def of_version(self, state: KeyState, newest: KeyVersion) -> Due | None:
        """Of a key at hand: from memory. `newest`: its newest version, or the one that is about to be."""
        return judge(self.rules, _facts(state, newest), self._keyring.hierarchy.now())

    def acts_on(self, state: KeyState) -> bool:
        """Whether openkd is to rotate that key now."""
        due = self.of_version(state, state.newest)
        return due is not None and due.now and due.acts

    async def dues(self, vault: VaultKeys, bodies: Sequence[KeyBody]) -> list[Due | None]:
        """In order; None for keys that no rule concerns. Raises HsmError, StoreError, RecordError,
        Refusal(store.damaged)."""
        if not self.rules:
            return [None] * len(bodies)
        hierarchy = self._keyring.hierarchy
        reading: list[tuple[str, Pending[Record | None]]] = []
        facing = [self._face(vault, body, reading) for body in bodies]
        records: list[Record] = []
        for kind, pending in reading:
            record = await pending
            if record is None:
                raise damaged(kind)
            records.append(record)
        plains = await hierarchy.sealing.open(vault.sealer, records)
        now = hierarchy.now()
        return [None if one is None else judge(self.rules, _facts_of(one, plains), now) for one in facing]

    def _face(
        self, vault: VaultKeys, body: KeyBody, reading: list[tuple[str, Pending[Record | None]]]
    ) -> _Facing | None:
        """Begin to read what rules need of a key and its record does not say."""
        name = f"{vault.name}/{body.name}"
        rules = [rule for rule in self.rules if rule.concerns(name, body.algorithm, body.purpose)]
        if not rules:
            return None
        facing = _Facing(name, body, self._keyring.loaded(name))
        if facing.state is not None:
            return facing
        store, id_ = self._keyring.hierarchy.store, version_id(body.id, body.newest)
        if body.newest > 1:  # the first version is as old as the key
            facing.version = len(reading)
            reading.append((KEY_VERSION, store.read(KEY_VERSION, id_)))
        if body.algorithm in COUNTED and any(rule.uses is not None for rule in rules):
            facing.usage = len(reading)
            reading.append((KEY_USAGE, store.read(KEY_USAGE, id_)))
        return facing

    async def walk(self, place: Place, most: int) -> Leg:
        """Look at up to `most` keys behind `place`; a vault counts as one. Raises HsmError, StoreError, RecordError,
        Refusal where the vaults themselves cannot be read; a vault that cannot be is left out."""
        found: list[Found] = []
        trouble: Exception | None = None
        looked, left = 0, most
        while left > 0:
            record = await self._vault_at(place)
            if record is None:
                return Leg(found, looked, None, trouble)
            (body,) = await self._keyring.hierarchy.bodies([record])
            if place.key is None or place.vault != record.id:
                place = Place(record.id, b"")
                left -= 1
            if left > 0:
                try:
                    place, count = await self._walk_vault(place, body, min(left, PAGE), found)
                except (HsmError, RecordError, Refusal) as error:
                    trouble = trouble or error
                    place, count = Place(record.id), 0
                looked, left = looked + count, left - count
        return Leg(found, looked, place, trouble)

    async def _vault_at(self, place: Place) -> Record | None:
        store = self._keyring.hierarchy.store
        if place.key is not None and (record := await store.read(VAULT, place.vault)) is not None:
            return record
        records = await store.query(VAULT, after=place.vault, limit=1)
        return records[0] if records else None

    async def _walk_vault(self, place: Place, body: VaultBody, most: int, found: list[Found]) -> tuple[Place, int]:
        """Add what is due among the next `most` keys of a vault; where to go on, and how many those were."""
        if not any(rule.reaches(body.name) for rule in self.rules):
            return Place(place.vault), 0
        hierarchy = self._keyring.hierarchy
        records = await hierarchy.store.query(KEY, body.id, place.key or b"", most)
        if not records:
            return Place(place.vault), 0
        # Not `Hierarchy.vault`: a look at all vaults must not push those in use out of its shelf.
        vault = hierarchy.assemble(body)
        try:
            plains = await hierarchy.sealing.open(vault.sealer, records)
            bodies = [decode(KeyBody, plain) for plain in plains]
            dues = await self.dues(vault, bodies)
        finally:
            for handle in vault.handles():
                if handle.slot >= FIRST_FREE_SLOT:
                    hierarchy.lane.unload(handle)
        for key, due in zip(bodies, dues, strict=True):
            if due is not None and due.now:
                found.append(Found(f"{body.name}/{key.name}", key.newest, due))
        return Place(place.vault, records[-1].id if len(records) == most else None), len(records)


def _facts(state: KeyState, newest: KeyVersion) -> Facts:
    uses = None if newest.usage is None else newest.usage.uses
    resident = state.protection is Protection.RESIDENT
    return Facts(state.name, state.algorithm.value, state.purpose.value, newest.created, uses, resident)


def _facts_of(one: _Facing, plains: Sequence[bytes]) -> Facts:
    if one.state is not None:
        return _facts(one.state, one.state.newest)
    body = one.body
    created = body.created if one.version is None else decode(KeyVersionBody, plains[one.version]).created
    uses = None if one.usage is None else decode(KeyUsageBody, plains[one.usage]).reserved
    return Facts(one.name, body.algorithm, body.purpose, created, uses, body.protection == Protection.RESIDENT)
