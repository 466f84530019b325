"""Keys, vaults and secrets on a software HSM and a memory store: a daemon's inside without its doors.

`Custody.call` does what the pipeline does with a handler's outcome: commit the writes with a record, run the
steps after, answer; but it answers plain values, and gives every lease back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from openk.wire.methods import METHODS
from openk_daemon.call import Answer, Arguments, Call, Handler, Outcome, Sealed, Value
from openk_daemon.handlers.hsm import HsmHandlers
from openk_daemon.handlers.keys import KeyHandlers
from openk_daemon.handlers.randomness import RandomHandlers
from openk_daemon.handlers.secrets import SecretHandlers
from openk_daemon.handlers.vaults import VaultHandlers
from openk_daemon.hierarchy.hierarchy import Hierarchy
from openk_daemon.hsms import Device, Hsms
from openk_daemon.identity.caller import Caller, Peer
from openk_daemon.keys.keyring import KeyLimits, Keyring
from openk_daemon.policy.decision import Resource
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Record, Store, StoreError, Unit
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Flow, drive
from openk_hsm.seam import Lane
from openk_hsm.selftest import Finding
from openk_hsm.software import SoftwareBackend
from openk_memory.pool import Pool
from tests.support.clock import Clock

T = TypeVar("T")
Shown = dict[str, Any]
"""An answer, its secrets as bytes. Any, because tests reach deep into answers whose shape the method table gives."""
Given = bytes | str | int | bool | Mapping[str, bytes]

POOL = Pool(2 << 20)
"""Pools are never closed, so tests share one."""

PEER = Peer(Caller(1000, 1000, (1000,), None, None, None), 4711, 7, "{}")


def run(flow: Flow[T]) -> T:
    """Drive a flow to its end. Everything below settles at once, so one step is enough."""
    ends: list[tuple[T | None, Exception | None]] = []
    drive(flow, lambda value, error: ends.append((value, error)))
    if not ends:
        raise AssertionError("the flow waits for something that nobody settles")
    value, error = ends[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # no error: the value has type T


class Custody:
    def __init__(
        self,
        *,
        lane: Lane | None = None,
        hsms: Hsms | None = None,
        devices: Sequence[Device] = (),
        store: Store | None = None,
        pool: Pool = POOL,
        limits: KeyLimits | None = None,
        vaults_kept: int = 256,
    ) -> None:
        """`hsms`: instead of one `lane`; `devices`: what operators see of them, else each as it is."""
        self.clock = Clock()
        hsms = hsms or Hsms.single(lane or InlineLane(SoftwareBackend(allow=True)))
        self.lane = hsms.lane
        self.store = store or MemoryStore()
        self.pool = pool
        self.failed: list[Finding] = []
        """Checks of `hsm.selftest` that failed."""
        data = hsms.default.info().result().data
        self.hierarchy = Hierarchy(hsms, self.store, self.clock.wall, vaults_kept=vaults_kept, data=data)
        self.keyring = Keyring(self.hierarchy, pool, limits, self.clock)
        self.keys = KeyHandlers(self.keyring, pool)
        self.secrets = SecretHandlers(self.hierarchy, pool)
        self.handlers: dict[str, Handler] = {
            **VaultHandlers(self.hierarchy).handlers(),
            **self.keys.handlers(),
            **self.secrets.handlers(),
            **RandomHandlers(self.lane, pool).handlers(),
            **HsmHandlers(
                devices or _devices(hsms), self.keyring, lambda _, found: self.failed.append(found)
            ).handlers(),
        }

    def again(self, limits: KeyLimits | None = None) -> Custody:
        """A daemon started anew on the same token and store: nothing remembered."""
        return Custody(lane=_second_lane(self.lane), store=self.store, pool=self.pool, limits=limits)

    def outcome(self, method: str, items: Sequence[Mapping[str, Given]] | None = None, /, **given: Given) -> Outcome:
        """What the handler says; nothing is committed."""
        return run(self.handlers[method](make_call(method, items, given)))

    def call(self, method: str, /, **given: Given) -> Shown:
        """One request, committed. Raises the item's Refusal."""
        (result,) = self.commit(self.outcome(method, None, **given))
        if isinstance(result, Refusal):
            raise result
        return result

    def batch(self, method: str, items: Sequence[Mapping[str, Given]], /, **given: Given) -> list[Shown | Refusal]:
        return self.commit(self.outcome(method, items, **given))

    def commit(self, outcome: Outcome) -> list[Shown | Refusal]:
        results = [result if isinstance(result, Refusal) else shown(result) for result in outcome.results]
        try:
            run(_commit(self.store, outcome))
        except StoreError as error:
            for step in outcome.after:
                if step.forget is not None:
                    step.forget()
            raise Refusal(error.code) from error
        for step in outcome.after:
            step.apply()
        return results


def _devices(hsms: Hsms) -> list[Device]:
    return [Device(name, lane, hsms.recorded(name), 1) for name, lane in hsms.items()]


def _second_lane(lane: Lane) -> Lane:
    """Another process on the same token: slots are its own, token objects are shared."""
    assert isinstance(lane, InlineLane)
    first = lane._backend
    assert isinstance(first, SoftwareBackend)
    second = SoftwareBackend(allow=True)
    second._token = first._token
    return InlineLane(second)


async def _commit(store: Store, outcome: Outcome) -> None:
    await store.commit(Unit(outcome.writes, b"{}"))


def make_call(method: str, items: Sequence[Mapping[str, Given]] | None, given: Mapping[str, Given]) -> Call:
    """A checked request. Bytes become slices of a writable buffer, as from the receive path."""
    fields = METHODS[method]
    known = {field.name for field in (*fields.fields, *fields.item)}
    every = [given, *(items or ())]
    unknown = {name for part in every for name in part} - known
    if unknown:
        raise AssertionError(f"{method} has no fields {unknown}")
    arguments = Arguments({name: _value(value) for name, value in given.items()})
    split = [arguments] if items is None else [Arguments({n: _value(v) for n, v in item.items()}) for item in items]
    return Call(fields, arguments, split, items is not None, Resource("System", ""), PEER, "r-1")


def _value(given: Given) -> Value:
    if isinstance(given, bytes):
        return memoryview(bytearray(given))
    if isinstance(given, Mapping):
        return {name: memoryview(bytearray(value)) for name, value in given.items()}
    return given


def shown(answer: Answer) -> Shown:
    """An answer with its secrets as bytes; their leases are given back. Types are those of the method table."""
    values: Shown = {}
    for name, value in answer.items():
        if isinstance(value, Sealed):
            values[name] = _read(value)
        elif isinstance(value, Mapping) and any(isinstance(part, Sealed) for part in value.values()):
            values[name] = {key: _read(part) for key, part in value.items() if isinstance(part, Sealed)}
        else:
            values[name] = value
    return values


def _read(sealed: Sealed) -> bytes:
    with sealed.lease as lease:
        return bytes(lease.view[: sealed.length])


def records(store: MemoryStore, kind: str) -> dict[bytes, Record]:
    """The store's own table of a kind: changing it is what somebody with the disk in their hands would do."""
    return store._records.setdefault(kind, {})


@dataclass(frozen=True)
class VaultSecrets:
    """What a third party would have to be given: the id of a vault, and its data and mac keys in clear."""

    id: bytes
    data: bytes
    mac: bytes


def vault_secrets(custody: Custody, name: str) -> VaultSecrets:
    """Out of the software HSM, which is made of glass."""
    lane = custody.lane
    assert isinstance(lane, InlineLane)
    backend = lane._backend
    assert isinstance(backend, SoftwareBackend)
    vault = run(custody.hierarchy.vault(name))
    data, mac = (backend._slots[key.slot].material for key in (vault.sealer.key, vault.wrapper.mac))
    assert isinstance(data, bytes)
    assert isinstance(mac, bytes)
    return VaultSecrets(vault.id, data, mac)
