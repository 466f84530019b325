"""Keys by name: found in the store once, then kept as long as they are used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openk_daemon.call import Arguments
from openk_daemon.hierarchy import canonical, records
from openk_daemon.hierarchy.flights import Flights
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.names import check_vault, split
from openk_daemon.hierarchy.records import (
    KEY,
    KEY_USAGE,
    KEY_VERSION,
    KeyBody,
    KeyUsageBody,
    KeyVersionBody,
    decode,
)
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.shelf import Shelf
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.keys.openings import Openings
from openk_daemon.keys.state import KeyState, KeyVersion, ciphertext_header, version_id
from openk_daemon.keys.suites import Protection
from openk_daemon.keys.usage import LIMIT, Counter, Usage
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Record
from openk_hsm.pending import Pending, begin
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Purpose, Resident, Wrapped
from openk_memory.pool import Pool

_PAGE = 1000  # records a query
TOGETHER = 256
"""Usage counts made exact beside each other at a stop: one after the other, each waits for the disk."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """`kept`: keys whose handles stay loaded. `cached_*`: how long, how often, how many cached keys stay open.
    `gcm_uses`: the greatest number of uses of one AES-GCM key version, at most 2^32 (NIST SP 800-38D, 8.3)."""

    kept: int = 4096
    cached_seconds: float = 300.0
    cached_uses: int = 1 << 20
    cached_open: int = 1024
    gcm_uses: int = LIMIT

    def __post_init__(self) -> None:
        if not 1 <= self.gcm_uses <= LIMIT:
            raise ValueError(f"gcm_uses is 1 to {LIMIT}")


class Keyring:
    """What handlers ask for keys. `sweep` and `close` are for whoever runs the daemon."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        pool: Pool,
        limits: KeyLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or KeyLimits()
        self.hierarchy = hierarchy
        self.pool = pool
        self.counter = Counter(hierarchy, limits.gcm_uses)
        self.openings = Openings(
            hierarchy,
            pool,
            monotonic,
            seconds=limits.cached_seconds,
            uses=limits.cached_uses,
            room=limits.cached_open,
        )
        self._states: Shelf[str, KeyState] = Shelf(limits.kept, self._leave)
        self._finding: Flights[str, KeyState] = Flights()
        self._loading: Flights[bytes, KeyVersion] = Flights()
        self.loaded = self._states.get
        """The key of that name, if it is at hand: the hot path's only look-up."""

    async def find(self, name: str) -> KeyState:
        """Raises Refusal: key.unknown, vault.unknown, request.invalid, store.damaged; HsmError; StoreError."""
        state = self._states.get(name)
        if state is None:
            state = await self._finding.join(name, lambda: self._find(name))
        return state

    async def version(self, state: KeyState, number: int) -> KeyVersion:
        """Raises Refusal(key.version_unknown)."""
        version = state.versions.get(number)
        if version is None:
            if not 1 <= number <= state.newest.number:
                raise Refusal("key.version_unknown", f"the newest version of {state.name} is {state.newest.number}")
            version = state.versions.setdefault(number, await self._load(state, number))
        return version

    async def select(self, arguments: Arguments) -> tuple[KeyState, KeyVersion]:
        """What the fields `key` and `version` name; the newest version when that is left out."""
        name = arguments.text("key")
        state = self._states.get(name) or await self.find(name)
        number = arguments.values.get("version")
        if number is None:
            return state, state.newest
        return state, await self.version(state, arguments.integer("version"))

    async def all_versions(self, state: KeyState) -> list[KeyVersion]:
        """In order; those that are not loaded are fetched side by side."""
        numbers = range(1, state.newest.number + 1)
        loading = {number: self._load(state, number) for number in numbers if number not in state.versions}
        for number, pending in loading.items():
            state.versions.setdefault(number, await pending)
        return [state.versions[number] for number in numbers]

    async def attributes(self, name: str) -> tuple[tuple[str, str], ...]:
        """Facts for policies; none where there is no such key."""
        try:
            return (await self.find(name)).attributes
        except Refusal as refusal:
            if refusal.code.name in {"key.unknown", "vault.unknown", "request.invalid"}:
                return ()
            raise

    async def page(self, vault_name: str, after: str | None, limit: int) -> tuple[VaultKeys, Sequence[KeyBody]]:
        """In the order of their keyed digests. `after` is VAULT/NAME or NAME."""
        hierarchy = self.hierarchy
        vault = await hierarchy.vault(check_vault(vault_name))
        behind = b""
        if after is not None:
            name = after if after.startswith(f"{vault_name}/") else f"{vault_name}/{after}"
            behind = await hierarchy.object_id(vault, KEY, split(name)[1])
        found = await hierarchy.store.query(KEY, vault.id, behind, min(max(limit, 1), _PAGE))
        plains = await hierarchy.sealing.open(vault.sealer, found)
        return vault, [decode(KeyBody, plain) for plain in plains]

    def keep(self, state: KeyState) -> KeyState:
        """Remember a key that is durable, unless a newer revision is known; whichever is newer."""
        known = self._states.get(state.name)
        if known is not None and known is not state and known.revision >= state.revision:
            self._leave(state)
            return known
        self._states.put(state.name, state)
        return state

    def sweep(self) -> int:
        """Wipe cached keys whose time is over, and what ciphers left in registers; how many keys. For once a second."""
        self.hierarchy.tidy()
        return self.openings.sweep()

    def forget(self) -> None:
        """Wipe cached keys, give back session objects, know no key any more: each is read anew when it is asked for.
        Counts of uses that were reserved and not used are lost, so they are over-counted."""
        self.openings.clear()
        self._states.clear()
        self.hierarchy.forget()

    async def close(self) -> None:
        """Make usage counts exact, wipe cached keys, give back session objects. Raises StoreError, HsmError after
        wiping. The keyring must not be used again."""
        states = list(self._states.values())
        self.openings.clear()
        usages = [version.usage for state in states for version in state.versions.values() if version.usage is not None]
        try:
            for first in range(0, len(usages), TOGETHER):
                settling = [begin(self.counter.settle(usage)) for usage in usages[first : first + TOGETHER]]
                for pending in settling:
                    await pending
        finally:
            self._states.clear()

    async def _find(self, name: str) -> KeyState:
        hierarchy = self.hierarchy
        vault_name, key_name = split(name)
        vault = await hierarchy.vault(vault_name)
        record_id = await hierarchy.object_id(vault, KEY, key_name)
        record = await hierarchy.store.read(KEY, record_id)
        if record is None:
            raise Refusal("key.unknown", f"no key {name}")
        (plain,) = await hierarchy.sealing.open(vault.sealer, [record])
        body = decode(KeyBody, plain)
        if body.name != key_name:
            raise damaged(KEY)
        state = await self._assemble(name, vault, record, body)
        return self.keep(state)

    async def _assemble(self, name: str, vault: VaultKeys, record: Record, body: KeyBody) -> KeyState:
        try:
            algorithm, purpose = Algorithm(body.algorithm), Purpose(body.purpose)
            protection = Protection(body.protection)
        except ValueError as error:
            raise records.RecordError("an algorithm, purpose or protection of another version of openk") from error
        newest = await self._read_version(vault, body.id, algorithm, purpose, protection, body.newest)
        return KeyState(
            name,
            vault,
            record.id,
            record.version,
            body.id,
            algorithm,
            purpose,
            protection,
            body.created,
            newest,
            {newest.number: newest},
        )

    def _load(self, state: KeyState, number: int) -> Pending[KeyVersion]:
        return self._loading.join(version_id(state.id, number), lambda: self._load_version(state, number))

    async def _load_version(self, state: KeyState, number: int) -> KeyVersion:
        return await self._read_version(state.vault, state.id, state.algorithm, state.purpose, state.protection, number)

    async def _read_version(
        self,
        vault: VaultKeys,
        key: bytes,
        algorithm: Algorithm,
        purpose: Purpose,
        protection: Protection,
        number: int,
    ) -> KeyVersion:
        store = self.hierarchy.store
        id_ = version_id(key, number)
        kinds = (KEY_VERSION, KEY_USAGE) if algorithm is Algorithm.AES_256_GCM else (KEY_VERSION,)
        reading = [(kind, store.read(kind, id_)) for kind in kinds]
        present: list[Record] = []
        for kind, pending in reading:
            record = await pending
            if record is None:
                raise damaged(kind)  # keys and versions are never deleted
            present.append(record)
        plains = await self.hierarchy.sealing.open(vault.sealer, present)
        body = decode(KeyVersionBody, plains[0])
        usage = None
        if len(present) > 1:
            usage = Usage(id_, vault, decode(KeyUsageBody, plains[1]).reserved, present[1].version)
        return self.version_of(vault, key, KeySpec(algorithm, purpose), protection, number, body, usage)

    def version_of(
        self,
        vault: VaultKeys,
        key: bytes,
        spec: KeySpec,
        protection: Protection,
        number: int,
        body: KeyVersionBody,
        usage: Usage | None,
    ) -> KeyVersion:
        """A version from its record; the HSM meets the key at its first use."""
        handle: KeyHandle | None = None
        material: bytes | None = None
        if protection is Protection.CACHED:
            material = body.key
        elif protection is Protection.RESIDENT:
            handle = self.hierarchy.handle(spec, Resident(object_label(body.key), body.key), vault.hsm)
        else:
            source = Wrapped(vault.wrapper, object_context(key, number), body.key)
            handle = self.hierarchy.handle(spec, source, vault.hsm)
        header = ciphertext_header(spec.purpose, key, number)
        return KeyVersion(number, body.created, body.public, handle, material, header, usage)

    def _leave(self, state: KeyState) -> None:
        for version in state.versions.values():
            self.openings.close(version)
            if version.handle is not None:
                self.hierarchy.lane.unload(version.handle)


def object_context(key: bytes, number: int) -> bytes:
    """What is bound to a wrapped key object: it opens as this version of this key only."""
    return canonical.encode(canonical.KEY_OBJECT, "key", key, number)


def object_label(object_id: bytes) -> str:
    """The label of a token object of openk's; its id is key id || version."""
    return f"openk-key-{object_id.hex()}"
