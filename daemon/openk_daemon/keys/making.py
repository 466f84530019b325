"""New keys and new versions: made in the HSM, or from its random bytes in locked memory; sealed; not yet durable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openk_daemon.hierarchy.envelope import KEY_ID
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hierarchy.intents import persist
from openk_daemon.hierarchy.names import split
from openk_daemon.hierarchy.records import (
    FORMAT,
    KEY,
    KEY_USAGE,
    KEY_VERSION,
    KeyBody,
    KeyUsageBody,
    KeyVersionBody,
    encode,
)
from openk_daemon.hierarchy.sealing import Draft, material_context
from openk_daemon.hierarchy.vault_keys import VaultKeys
from openk_daemon.keys import cached
from openk_daemon.keys.keyring import Keyring, object_context
from openk_daemon.keys.parameters import Parameters
from openk_daemon.keys.residents import Residents
from openk_daemon.keys.state import KeyState, KeyVersion, version_id
from openk_daemon.keys.suites import CURVES, SUITES, Protection
from openk_daemon.keys.usage import FIRST_BLOCK, Usage
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Write
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending
from openk_hsm.seam import Algorithm, Generated, KeySpec, OpCode, Operation, Purpose, TokenInfo
from openk_memory.pool import Pool

_DRAWS: Final = 64
"""Tries for a curve's scalar; one fails with probability below 2^-32 (P-256) or 2^-64."""


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A key (version) that is not durable yet: commit `writes`; then give `state`, with `version` as its newest, to
    `Keyring.keep`. `made` is a token object to destroy when the commit fails."""

    state: KeyState
    version: KeyVersion
    writes: tuple[Write, ...]
    made: bytes | None


class Making:
    def __init__(self, keyring: Keyring, pool: Pool, residents: Residents) -> None:
        self._keyring = keyring
        self._hierarchy: Hierarchy = keyring.hierarchy
        self._pool = pool
        self._residents = residents
        self.parameters = Parameters()
        """What new keys and new versions may be."""
        self._first_block = min(FIRST_BLOCK, keyring.counter.limit)

    async def draft(self, name: str, algorithm: Algorithm, purpose: Purpose | None, protection: str | None) -> Fresh:
        """A new key. Raises Refusal: key.exists, key.unsupported, key.unsuitable, vault.unknown."""
        hierarchy = self._hierarchy
        vault_name, key_name = split(name)
        purpose = purpose or SUITES[algorithm].purposes[0]
        if purpose not in SUITES[algorithm].purposes:
            raise Refusal("key.unsuitable", f"{algorithm.value} keys are for {_words(SUITES[algorithm].purposes)}")
        self.parameters.check_algorithm(algorithm)
        vault = await hierarchy.vault(vault_name)
        spec = KeySpec(algorithm, purpose)
        chosen = choose(await hierarchy.hsms.of_vault(vault).info(), spec, protection)
        self.parameters.check_protection(chosen)
        record = await hierarchy.object_id(vault, KEY, key_name)
        if await hierarchy.store.read(KEY, record) is not None:
            raise Refusal("key.exists", f"a key {name} exists")

        async def draft() -> Fresh:
            id_ = await hierarchy.random(KEY_ID)
            now = hierarchy.now()
            version, drafts, journal = await self._draft_version(vault, id_, spec, chosen, 1, now)
            body = KeyBody(FORMAT, key_name, id_, algorithm.value, purpose.value, chosen.value, 1, now)
            drafts.append(Draft(KEY, record, 0, encode(body)))
            state = KeyState(name, vault, record, 0, id_, algorithm, purpose, chosen, now, version, {1: version})
            return await self._finish(state, version, drafts, journal)

        return await persist(draft)

    async def draft_version(self, state: KeyState) -> Fresh:
        """The next version of a key. Raises Refusal key.unsupported, where a key like it may not be made any more."""
        self.parameters.check_algorithm(state.algorithm)
        self.parameters.check_protection(state.protection)
        number = state.newest.number + 1
        spec = KeySpec(state.algorithm, state.purpose)
        now = self._hierarchy.now()
        version, drafts, journal = await self._draft_version(state.vault, state.id, spec, state.protection, number, now)
        body = KeyBody(
            FORMAT,
            split(state.name)[1],
            state.id,
            state.algorithm.value,
            state.purpose.value,
            state.protection.value,
            number,
            state.created,
        )
        drafts.append(Draft(KEY, state.record, state.revision, encode(body)))
        return await self._finish(state, version, drafts, journal)

    async def _finish(
        self, state: KeyState, version: KeyVersion, drafts: list[Draft], journal: tuple[bytes, Write] | None
    ) -> Fresh:
        try:
            writes = await self._hierarchy.sealing.seal(state.vault.sealer, drafts)
        except Exception:
            if journal is not None:
                await self._residents.undo(journal[0], state.vault.hsm)
            raise
        if journal is None:
            return Fresh(state, version, tuple(writes), None)
        return Fresh(state, version, (*writes, journal[1]), journal[0])

    async def _draft_version(
        self, vault: VaultKeys, key: bytes, spec: KeySpec, protection: Protection, number: int, now: int
    ) -> tuple[KeyVersion, list[Draft], tuple[bytes, Write] | None]:
        id_ = version_id(key, number)
        journal: tuple[bytes, Write] | None = None
        if protection is Protection.CACHED:
            context = material_context(spec.algorithm.value, vault.id, key, number, spec.purpose.value)
            blob, public = await self._make_cached(vault, spec.algorithm, context)
        elif protection is Protection.RESIDENT:
            generated, done = await self._residents.make(spec, id_, vault.hsm)
            blob, public, journal = id_, generated.public, (id_, done)
        else:
            generated = await self._generate(vault, spec, object_context(key, number))
            blob, public = _blob(generated), generated.public
        body = KeyVersionBody(FORMAT, now, blob, public)
        drafts = [Draft(KEY_VERSION, id_, 0, encode(body))]
        usage: Usage | None = None
        if spec.algorithm is Algorithm.AES_256_GCM:
            first = self._first_block
            usage = Usage(id_, vault, first, 1, first, first // 4, FIRST_BLOCK * 2)
            drafts.append(Draft(KEY_USAGE, id_, 0, encode(KeyUsageBody(FORMAT, first))))
        return self._keyring.version_of(vault, key, spec, protection, number, body, usage), drafts, journal

    def _generate(self, vault: VaultKeys, spec: KeySpec, context: bytes) -> Pending[Generated]:
        return self._hierarchy.lane.generate(spec, vault.wrapper, context)

    async def _make_cached(self, vault: VaultKeys, algorithm: Algorithm, context: bytes) -> tuple[bytes, bytes | None]:
        """(envelope, public key): the key's bytes exist in one lease only, and only until it is sealed."""
        size = SUITES[algorithm].material
        prefix = cached.PKCS8_PREFIX.get(algorithm, b"")
        with self._pool.lease(len(prefix) + size) as lease:
            material = lease.view
            material[: len(prefix)] = prefix
            await self._draw(algorithm, material[len(prefix) :])
            public = cached.public_of(algorithm, material)
            return await self._hierarchy.sealing.seal_material(vault.sealer, context, material), public

    async def _draw(self, algorithm: Algorithm, into: memoryview) -> None:
        size = len(into)
        for _ in range(_DRAWS):
            if await self._hierarchy.lane.submit(Operation(OpCode.RANDOM, size, into=into)) != size:
                raise HsmError("the HSM gave too few random bytes")
            if algorithm not in CURVES or cached.shape_scalar(algorithm, into):
                return
        raise HsmError("the HSM's random bytes do not look random")


def choose(info: TokenInfo, spec: KeySpec, asked: str | None) -> Protection:
    """The protection for a new key. `wrapped` is the usual one, `resident` where the HSM wraps none; `cached` is chosen
    without being asked for only where no device has the algorithm. Raises Refusal(key.unsupported) that names what is
    possible."""
    possible: list[Protection] = []
    if spec in info.wrapped:
        possible.append(Protection.WRAPPED)
    if spec in info.resident:
        possible.append(Protection.RESIDENT)
    suite = SUITES[spec.algorithm]
    if suite.material:
        possible.append(Protection.CACHED)
    wanted = Protection.WRAPPED if asked is None else Protection(asked)
    if asked is None and wanted not in possible:
        if info.resident_vaults and Protection.RESIDENT in possible:
            wanted = Protection.RESIDENT
        elif suite.only_cached:
            wanted = Protection.CACHED
    if wanted not in possible:
        names = [protection.value for protection in possible]
        why = "this HSM keeps no wrapped keys; " if info.resident_vaults and wanted is Protection.WRAPPED else ""
        raise Refusal(
            "key.unsupported",
            f"{why}{spec.algorithm.value} for {spec.purpose.value} is possible here as: "
            f"{', '.join(names) or 'nothing'}",
            details={"possible": names},
        )
    return wanted


def _blob(generated: Generated) -> bytes:
    if generated.blob is None:
        raise HsmError("the HSM gave no wrapped key")
    return generated.blob


def _words(purposes: tuple[Purpose, ...]) -> str:
    return " or ".join(purpose.value for purpose in purposes)
