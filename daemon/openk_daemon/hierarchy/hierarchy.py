"""The key hierarchy: root keys -> vault keys -> what vaults hold. Only handles; key bytes stay in the HSM.

root (resident)      kw: wraps vault keys     data: seals vault records     mac: binds them, digests vault names
  └─ vault (wrapped) kw: wraps clients' keys  data: seals records, data keys mac: binds them, digests names
     on a YubiHSM (resident) nothing is wrapped: `data` and `mac` are objects, clients' keys are resident or cached

Each HSM has root keys of its own, and a vault's keys live on one HSM. Records of vaults are the first one's: there a
vault's name leads to the HSM that has its keys (openk_daemon.hsms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from openk_daemon.hierarchy import canonical
from openk_daemon.hierarchy.flights import Flights
from openk_daemon.hierarchy.nonces import Nonces
from openk_daemon.hierarchy.records import VAULT, VaultBody, decode
from openk_daemon.hierarchy.refusals import damaged
from openk_daemon.hierarchy.sealing import Sealing
from openk_daemon.hierarchy.shelf import Shelf
from openk_daemon.hierarchy.vault_keys import (
    DEVICE_DATA,
    KW,
    MAC,
    ROOT_ID,
    VaultKeys,
    data_spec,
    key_context,
    object_label,
    sealer,
    usage_id,
)
from openk_daemon.hsms import HOME, Hsms, root_of
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Record, Store
from openk_hsm.errors import HsmError
from openk_hsm.roots import FIRST_FREE_SLOT, ROOT_MAC, root_data
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Resident, Wrapped, Wrapper
from openk_memory.scrub import scrub

DIGEST: Final = 32  # bytes
_VAULT_DIGESTS_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A token object that came to nothing and is to be destroyed (openk_daemon.hierarchy.intents)."""

    label: str
    id: bytes
    hsm: str
    role: bytes


class Hierarchy:
    """`vaults_kept` bounds the vaults whose three session objects stay loaded in workers."""

    def __init__(
        self,
        hsms: Hsms,
        store: Store,
        clock: Callable[[], datetime],
        *,
        vaults_kept: int = 256,
        data: Algorithm = Algorithm.AES_256_GCM,
    ) -> None:
        """`data`: what data keys are on the first HSM (its `TokenInfo.data`)."""
        lane = hsms.lane
        self.hsms = hsms
        self.lane = lane
        """For operations and wrapped keys of any HSM. What needs one HSM asks `hsms`."""
        self.store = store
        self.nonces = Nonces(lane)
        self.sealing = Sealing(lane, self.nonces, store)
        self.root = sealer(ROOT_ID, root_data(data), counted=False)
        self.unfinished: dict[bytes, Unfinished] = {}
        """By their intents' ids. An intent is sealed by the first HSM, so none is added while that is away."""
        self.touched = False
        """Whether a cipher ran over secrets here since the last `tidy`: set by whoever ran it."""
        self._clock = clock
        self._slot = FIRST_FREE_SLOT
        self._vaults: Shelf[str, VaultKeys] = Shelf(vaults_kept, self._unload)
        self._vault_digests: Shelf[str, bytes] = Shelf(_VAULT_DIGESTS_KEPT)
        self._opening: Flights[str, VaultKeys] = Flights()

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock().timestamp() * 1000)

    def handle(self, spec: KeySpec, source: Resident | Wrapped, hsm: str = HOME) -> KeyHandle:
        """A handle with a slot of its own for the daemon's life, on the HSM of that name (as records have it)."""
        slot = self._slot
        self._slot = slot + 1
        return KeyHandle(slot, spec, source, hsm)

    async def vault(self, name: str) -> VaultKeys:
        """Raises Refusal: vault.unknown, store.damaged."""
        keys = self._vaults.get(name)
        if keys is None:
            keys = await self._opening.join(name, lambda: self._load(name))
        return keys

    async def vault_id(self, name: str) -> bytes:
        """The id of a vault's record: the store does not learn the name."""
        digest = self._vault_digests.get(name)
        if digest is None:
            digest = await self._mac(ROOT_MAC, canonical.encode(canonical.NAME, "vault", name))
            self._vault_digests.put(name, digest)
        return digest

    async def object_id(self, vault: VaultKeys, type_: str, name: str) -> bytes:
        """vault id || HMAC(vault's mac key, name): records of one vault are neighbours in the store."""
        digest = vault.digests.get((type_, name))
        if digest is None:
            digest = vault.id + await self._mac(vault.wrapper.mac, canonical.encode(canonical.NAME, type_, name))
            vault.digests.put((type_, name), digest)
        return digest

    async def random(self, length: int) -> bytes:
        """Public random bytes (ids) from the HSM."""
        answer = await self.lane.submit(Operation(OpCode.RANDOM, length))
        if not isinstance(answer, bytes) or len(answer) != length:
            raise HsmError("the HSM gave too few random bytes")
        return answer

    def assemble(self, body: VaultBody) -> VaultKeys:
        """Handles for a vault's record; the HSM verifies and unwraps them at first use. Raises Refusal(hsm.unavailable)
        where its HSM is configured no longer."""
        self.hsms.of(body.hsm)
        root = root_of(body.hsm)
        if not body.data:
            return self._assemble_resident(body, root)

        def load(spec: KeySpec, role: str, blob: bytes) -> KeyHandle:
            return self.handle(spec, Wrapped(root, key_context(body.id, role), blob), body.hsm)

        wrapper = Wrapper(load(KW, "kw", body.kw), load(MAC, "mac", body.mac))
        sealing = sealer(body.id, load(data_spec(body.data), "data", body.data))
        return VaultKeys(body.name, body.id, body.created, wrapper, sealing, body.hsm)

    def _assemble_resident(self, body: VaultBody, root: Wrapper) -> VaultKeys:
        id_ = usage_id(body.id)

        def find(spec: KeySpec, role: str) -> KeyHandle:
            return self.handle(spec, Resident(object_label(role, id_), id_), body.hsm)

        wrapper = Wrapper(root.kw, find(MAC, "mac"))  # nothing is wrapped there
        sealing = sealer(body.id, find(DEVICE_DATA, "data"))
        return VaultKeys(body.name, body.id, body.created, wrapper, sealing, body.hsm)

    def keep(self, vault: VaultKeys) -> None:
        """A vault that is durable now may be used by name."""
        self._vaults.put(vault.name, vault)

    async def bodies(self, records: list[Record]) -> list[VaultBody]:
        """The contents of vault records. Raises Refusal(store.damaged)."""
        plains = await self.sealing.open(self.root, records)
        return [decode(VaultBody, plain) for plain in plains]

    def tidy(self) -> None:
        """Scrub what ciphers left in registers and dead stack frames. It costs as much as a small encryption, so it is
        not part of every request: whoever runs the daemon has it done when requests pause, once a second at least."""
        if self.touched:
            self.touched = False
            scrub()

    def forget(self) -> None:
        """Give back all session objects and scrub registers and stack; vaults are loaded anew when asked for."""
        self._vaults.clear()
        self.touched = False
        scrub()

    def close(self) -> None:
        """Give back all session objects. Idempotent."""
        self._vaults.clear()

    async def _load(self, name: str) -> VaultKeys:
        record = await self.store.read(VAULT, await self.vault_id(name))
        if record is None:
            raise Refusal("vault.unknown", f"no vault {name}")
        (body,) = await self.bodies([record])
        if body.name != name:
            raise damaged(VAULT)
        vault = self.assemble(body)
        self.keep(vault)
        return vault

    async def _mac(self, key: KeyHandle, data: bytes) -> bytes:
        answer = await self.lane.submit(Operation(OpCode.MAC, DIGEST, key, Mechanism.HMAC_SHA_256, data=data))
        if not isinstance(answer, bytes) or len(answer) != DIGEST:
            raise HsmError("an HMAC of the wrong length")
        return answer

    def _unload(self, vault: VaultKeys) -> None:
        for handle in vault.handles():
            self.lane.unload(handle)


@lru_cache(maxsize=1024)
def rfc3339(milliseconds: int) -> str:
    """UTC, with milliseconds."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
