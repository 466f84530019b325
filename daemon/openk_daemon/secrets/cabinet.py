"""Secrets by name: heads (name, newest version) and versions, found, drafted and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy.flights import Flights
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.names import check_vault, split
from openk_daemon.hierarchy.records import FORMAT, SECRET, SECRET_VERSION, SecretBody, decode, encode
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.sealing import Draft
from openk_daemon.hierarchy.shelf import Shelf
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.refusal import Refusal
from openk_daemon.secrets.locker import Locker, Unlocked
from openk_daemon.store.seam import Record, Write
from openk_memory.pool import Pool

_ID: Final = 16  # bytes
_PAGE: Final = 1000  # records a query
OUTLIVED_MOST: Final = 64
"""Versions that go with one put, at most: the audit entry names each, and the put waits for it."""
_HEADS_KEPT: Final = 16384
_NEWEST_KEPT: Final = 4096
_NEWEST_MOST: Final = 1024
"""Bytes of a version's record that is kept, sealed as it is: with the count, 4 MiB at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A secret as its record says. `revision` is the record's version in the store."""

    name: str
    vault: VaultKeys
    record: bytes
    revision: int
    body: SecretBody


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """Writes that are not durable yet; then give `head` to `Cabinet.keep` (None: to `Cabinet.drop` by name)."""

    head: Head | None
    writes: tuple[Write, ...]
    count: int


class Cabinet:
    def __init__(self, hierarchy: Hierarchy, pool: Pool) -> None:
        self._hierarchy = hierarchy
        self._locker = Locker(hierarchy, pool)
        self._heads: Shelf[str, Head] = Shelf(_HEADS_KEPT)
        self._newest: Shelf[str, tuple[Head, Record]] = Shelf(_NEWEST_KEPT)
        """Newest versions as the store had them under that very head: a secret that changes gets another head."""
        self._finding: Flights[str, Head | None] = Flights()
        self.kept_versions = 0
        """When a secret is put, versions so many or more below the new one go; 0: none does."""
        self._changes = 0
        """Grows with every change here: what was read from the store before one may be old."""

    async def find(self, name: str) -> Head | None:
        """Raises Refusal: vault.unknown, request.invalid, store.damaged."""
        head = self._heads.get(name)
        if head is None:
            head = await self._finding.join(name, lambda: self._find(name))
        return head

    def keep(self, head: Head) -> None:
        """Remember a head that has just become durable."""
        self._changes += 1
        self._heads.put(head.name, head)

    def drop(self, name: str) -> None:
        self._changes += 1
        self._heads.drop(name)

    async def put(
        self, name: str, names: Sequence[str] | None, values: Sequence[memoryview], expected: int | None
    ) -> Change:
        """The next version. Raises Refusal(secret.conflict) when the newest is not the `expected` one."""
        hierarchy = self._hierarchy
        head = await self.find(name)
        current = 0 if head is None else head.body.current
        if expected is not None and expected != current:
            raise Refusal("secret.conflict", f"the newest version is {current}", details={"version": current})
        vault_name, secret_name = split(name)
        if head is None:
            vault = await hierarchy.vault(vault_name)
            record = await hierarchy.object_id(vault, SECRET, secret_name)
            id_, last, revision = await hierarchy.random(_ID), 0, 0
        else:
            vault, record, revision = head.vault, head.record, head.revision
            id_, last = head.body.id, head.body.last
        number, now = last + 1, hierarchy.now()
        version = await self._locker.lock(vault, version_id(id_, number), now, names, values)
        body = SecretBody(FORMAT, secret_name, id_, number, number, now)
        writes = [version, *await self._outlived(id_, number)]
        return await self._change(Head(name, vault, record, revision + 1, body), writes, number)

    async def get(self, name: str, number: int | None, owner: int) -> tuple[int, Unlocked]:
        """Raises Refusal: secret.unknown, secret.version_unknown, store.damaged."""
        head = await self._known(name)
        wanted, record = await self._version(head, number)
        while record is None:
            # Its head says it is there. Either the secret was changed since the head was read, or the store was.
            self.drop(name)
            fresh = await self._known(name)
            if fresh.body.id == head.body.id and fresh.revision == head.revision:
                raise damaged(SECRET_VERSION)
            head = fresh
            wanted, record = await self._version(head, number)
        return wanted, await self._locker.unlock(head.vault, record, owner)

    async def page(self, vault_name: str, after: str | None, limit: int) -> Sequence[SecretBody]:
        """In the order of their keyed digests. `after` is VAULT/NAME or NAME."""
        hierarchy = self._hierarchy
        vault = await hierarchy.vault(check_vault(vault_name))
        behind = b""
        if after is not None:
            name = after if after.startswith(f"{vault_name}/") else f"{vault_name}/{after}"
            behind = await hierarchy.object_id(vault, SECRET, split(name)[1])
        records = await hierarchy.store.query(SECRET, vault.id, behind, min(max(limit, 1), _PAGE))
        plains = await hierarchy.sealing.open(vault.sealer, records)
        return [decode(SecretBody, plain) for plain in plains]

    async def delete(self, name: str, number: int | None) -> Change:
        """All versions with the secret, or one; the secret goes with its last version. Version numbers of a secret
        are not used again; a secret of the same name put later has another id, so old records do not fit it."""
        head = await self._known(name)
        records = await self._versions(head)
        if number is None:
            gone, left = records, []
        else:
            id_ = version_id(head.body.id, number)
            gone = [record for record in records if record.id == id_]
            left = [record for record in records if record.id != id_]
            if not gone:
                raise Refusal("secret.version_unknown", f"{name} has no version {number}")
        writes = [Write(SECRET_VERSION, record.id, record.version, None) for record in gone]
        if not left:
            writes.append(Write(SECRET, head.record, head.revision, None))
            return Change(None, tuple(writes), len(gone))
        newest = left[-1]
        body = head.body
        created = body.created
        current = _number(newest)
        if current != body.current:
            created = await self._locker.created(head.vault, newest)
        body = SecretBody(FORMAT, body.name, body.id, body.last, current, created)
        return await self._change(Head(name, head.vault, head.record, head.revision + 1, body), writes, len(gone))

    async def _outlived(self, secret: bytes, newest: int) -> list[Write]:
        """Deletions of the oldest versions that version `newest` leaves no room for."""
        last = newest - self.kept_versions
        gone: list[Record] = []
        limit = 2  # usually one has to go, and the next one stays
        while self.kept_versions and last > 0 and len(gone) < OUTLIVED_MOST:
            after = gone[-1].id if gone else b""
            page = await self._hierarchy.store.query(SECRET_VERSION, secret, after, limit)
            going = [record for record in page if _number(record) <= last]
            gone += going
            if not going or len(going) < len(page):
                break
            limit = OUTLIVED_MOST - len(gone)
        return [Write(SECRET_VERSION, record.id, record.version, None) for record in gone]

    async def _change(self, head: Head, writes: list[Write], count: int) -> Change:
        draft = Draft(SECRET, head.record, head.revision - 1, encode(head.body))
        sealed = await self._hierarchy.sealing.seal(head.vault.sealer, [draft])
        return Change(head, (*writes, *sealed), count)

    async def _known(self, name: str) -> Head:
        head = await self.find(name)
        if head is None:
            raise Refusal("secret.unknown", f"no secret {name}")
        return head

    async def _version(self, head: Head, number: int | None) -> tuple[int, Record | None]:
        """None when the current version is missing. Raises Refusal(secret.version_unknown) for others."""
        wanted = head.body.current if number is None else number
        if wanted == head.body.current:
            kept = self._newest.get(head.name)
            if kept is not None and kept[0] is head:
                return wanted, kept[1]
        if not 1 <= wanted <= head.body.last:
            raise Refusal("secret.version_unknown", f"the newest version of {head.name} is {head.body.current}")
        record = await self._hierarchy.store.read(SECRET_VERSION, version_id(head.body.id, wanted))
        if record is None and wanted != head.body.current:
            raise Refusal("secret.version_unknown", f"version {wanted} of {head.name} was deleted")
        if record is not None and wanted == head.body.current and len(record.body) <= _NEWEST_MOST:
            self._newest.put(head.name, (head, record))
        return wanted, record

    async def _versions(self, head: Head) -> list[Record]:
        found: list[Record] = []
        after = b""
        while page := await self._hierarchy.store.query(SECRET_VERSION, head.body.id, after, _PAGE):
            found.extend(page)
            after = page[-1].id
        return found

    async def _find(self, name: str) -> Head | None:
        hierarchy = self._hierarchy
        before = self._changes
        vault_name, secret_name = split(name)
        vault = await hierarchy.vault(vault_name)
        record_id = await hierarchy.object_id(vault, SECRET, secret_name)
        record = await hierarchy.store.read(SECRET, record_id)
        if record is None:
            return None
        (plain,) = await hierarchy.sealing.open(vault.sealer, [record])
        body = decode(SecretBody, plain)
        if body.name != secret_name:
            raise damaged(SECRET)
        head = Head(name, vault, record_id, record.version, body)
        if self._changes == before:
            self._heads.put(name, head)
        return head


def version_id(secret: bytes, number: int) -> bytes:
    """Id of a version's record: versions of one secret are neighbours, in order."""
    return secret + number.to_bytes(4, "big")


def _number(record: Record) -> int:
    return int.from_bytes(record.id[_ID:], "big")
