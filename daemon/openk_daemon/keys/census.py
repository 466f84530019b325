"""Who owns which object of a token: the objects as the HSM lists them, matched with the records of the store.

    token object   openk-root-...          root, audit
                   openk-key-<id>          a version of a resident key: its record names it, or its intent (unfinished)
                   openk-data-<id>, ...    keys of a vault, where the device wraps none; likewise
                   who may log in          login (YubiHSM): an operator's, and nobody's mistake
                   anything else           unknown: somebody else made it
    record         resident, no object     missing: the key cannot be used any more

Records are read a page at a time, each opened by the HSM in the fair queue: clients are served in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.records import INTENT, KEY, KEY_USAGE, KEY_VERSION, VAULT, KeyBody, VaultBody, decode
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.hierarchy.vault_keys import object_label as vault_label
from openk_daemon.keys.keyring import object_label
from openk_daemon.keys.state import version_id
from openk_daemon.keys.suites import Protection
from openk_hsm.roots import AUDIT_KEY, FIRST_FREE_SLOT, name_of, roots
from openk_hsm.seam import KeyHandle, Lane, ObjectInfo, Resident, TokenInfo

KEYS_MOST: Final = 50_000
"""Keys that one request looks at: about a second of an HSM that opens 50,000 records a second."""
_PAGE: Final = 100


class State(StrEnum):
    OK = "ok"
    UNKNOWN = "unknown"
    MISSING = "missing"
    DOUBLED = "doubled"


class Role(StrEnum):
    ROOT = "root"
    AUDIT = "audit"
    VAULT = "vault"
    KEY = "key"
    LOGIN = "login"  # by which somebody logs in to the device: operators make these
    UNFINISHED = "unfinished"  # being made, or left by a crash: destroyed at the next start
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Owner:
    """`name` and `version` of a key; both None for what has none, or where the key was not among those looked at.
    `algorithm` as openk names it, empty where openk does not know."""

    role: Role
    name: str | None = None
    version: int | None = None
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    state: State
    owner: Owner
    object: ObjectInfo


@dataclass(frozen=True, slots=True)
class Report:
    """`keys`: how many were looked at; not `complete`: there are more."""

    rows: Sequence[Row]
    keys: int
    complete: bool


_STATES: Final = tuple(State)
_ROLES: Final = tuple(Role)
_AUTHENTICATION: Final = "authentication"
_VAULT_ROLES: Final = ("data", "mac")

Identity = tuple[str, bytes]
"""Label and id."""


class Census:
    def __init__(self, hierarchy: Hierarchy, most: int = KEYS_MOST) -> None:
        self._hierarchy = hierarchy
        self._most = most

    async def take(self, hsm: str, lane: Lane, *, residents: bool = True) -> Report:
        """`hsm`: as records name it; `lane`: to its token. Not `residents`: a token that has the same root keys as that
        HSM and nothing else of it. Raises HsmError, StoreError, Refusal(store.damaged)."""
        # Records first: what is made meanwhile is then an object with a record, and nothing seems to be missing.
        expected = _expected_roots(await lane.info())
        keys = await self._walk(hsm, expected) if residents else 0
        objects = await lane.objects()
        rows = await self._judge(objects, expected)
        seen = {(found.label, found.id) for found in objects}
        rows += [_missing(identity, owner) for identity, owner in expected.items() if identity not in seen]
        rows.sort(key=_place)
        return Report(rows, min(keys, self._most), complete=keys <= self._most)

    async def _judge(self, objects: Sequence[ObjectInfo], expected: dict[Identity, Owner]) -> list[Row]:
        """A key pair is two objects of one name; two of one kind are one too many."""
        counts = Counter((found.label, found.id, found.kind) for found in objects)
        rows: list[Row] = []
        for found in objects:
            owner = expected.get((found.label, found.id)) or await self._owner(found)
            state = State.OK
            if owner.role is Role.NONE:
                state = State.UNKNOWN
            elif counts[found.label, found.id, found.kind] > 1:
                state = State.DOUBLED
            rows.append(Row(state, owner, found))
        return rows

    async def _owner(self, found: ObjectInfo) -> Owner:
        """Of an object that no record named until now."""
        if found.kind == _AUTHENTICATION:
            return Owner(Role.LOGIN)
        store = self._hierarchy.store
        if found.label == object_label(found.id):
            if await store.read(KEY_VERSION, found.id) is not None:
                return Owner(Role.KEY)
            if await store.read(INTENT, found.id) is not None:
                return Owner(Role.UNFINISHED)
        for role in _VAULT_ROLES:
            if found.label == vault_label(role, found.id):
                if await store.read(INTENT, found.id + role.encode()) is not None:
                    return Owner(Role.UNFINISHED)
                if await store.read(KEY_USAGE, found.id) is not None:
                    return Owner(Role.VAULT)
        return Owner(Role.NONE)

    async def _walk(self, hsm: str, expected: dict[Identity, Owner]) -> int:
        """Add the resident keys of every vault on that HSM; how many keys that was, one too many when it stopped."""
        keys = 0
        after = b""
        while page := await self._hierarchy.store.query(VAULT, after=after, limit=_PAGE):
            after = page[-1].id
            for vault in await self._hierarchy.bodies(list(page)):
                if vault.hsm == hsm:
                    keys += await self._walk_vault(vault, expected, self._most - keys)
                if keys > self._most:
                    return keys
        return keys

    async def _walk_vault(self, vault: VaultBody, expected: dict[Identity, Owner], most: int) -> int:
        """How many keys it has, `most` + 1 when it has more."""
        # Not `Hierarchy.vault`: a look at all vaults must not push those in use out of its shelf.
        opened = self._hierarchy.assemble(vault)
        _expect_vault(vault.name, opened, expected)
        keys = 0
        after = b""
        try:
            while page := await self._hierarchy.store.query(KEY, vault.id, after, _PAGE):
                after = page[-1].id
                for plain in await self._hierarchy.sealing.open(opened.sealer, page):
                    keys += 1
                    if keys > most:
                        return keys
                    _expect(vault.name, decode(KeyBody, plain), expected)
        finally:
            for handle in opened.handles():
                if handle.slot >= FIRST_FREE_SLOT:
                    self._hierarchy.lane.unload(handle)
        return keys


def _expect_vault(name: str, vault: VaultKeys, expected: dict[Identity, Owner]) -> None:
    for handle in (vault.sealer.key, vault.wrapper.mac):
        if isinstance(handle.source, Resident):
            owner = Owner(Role.VAULT, name, algorithm=handle.spec.algorithm.value)
            expected[handle.source.label, handle.source.id] = owner


def _expect(vault: str, body: KeyBody, expected: dict[Identity, Owner]) -> None:
    if body.protection == Protection.RESIDENT:
        for number in range(1, body.newest + 1):
            id_ = version_id(body.id, number)
            expected[object_label(id_), id_] = Owner(Role.KEY, f"{vault}/{body.name}", number, body.algorithm)


def _expected_roots(token: TokenInfo) -> dict[Identity, Owner]:
    return {name_of(root): _root_owner(root) for root in roots(token.data, token.audit)}


def _root_owner(root: KeyHandle) -> Owner:
    return Owner(Role.AUDIT if root.source == AUDIT_KEY.source else Role.ROOT, algorithm=root.spec.algorithm.value)


def _place(row: Row) -> tuple[object, ...]:
    """What is wrong comes last, where a person looks first."""
    owner = row.owner
    return (_STATES.index(row.state), _ROLES.index(owner.role), owner.name or "", owner.version or 0, row.object.label)


def _missing(identity: Identity, owner: Owner) -> Row:
    return Row(State.MISSING, owner, ObjectInfo(*identity, kind="", algorithm=owner.algorithm))
