"""Ledgers for tests: a software audit key of each kind, a store, a folder."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

import trio
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openk_daemon.audit.ledger import LogLedger, Recovery, Rules
from openk_daemon.audit.note_key import NoteKey, read_note_key
from openk_daemon.audit.seam import Head, Proof
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Committed, LocalStore, Write
from openk_daemon.store.sqlite import open_store
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending, failed, resolved
from tests.daemon.store.answers import answer

ORIGIN = "openk.test/audit"
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KEY = Ed25519PrivateKey.from_private_bytes(b"audit key of the tests, 32 bytes")
P256_KEY = ec.derive_private_key(int.from_bytes(b"audit key of the tests, 32 bytes", "big"), ec.SECP256R1())
SLOW = Rules(interval=3600, count=1 << 30, reserve=0)
"""Signs only when asked to."""


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


KINDS: dict[str, Callable[[], PrivateKey]] = {"ed25519": lambda: KEY, "p-256": lambda: P256_KEY, "rsa-3072": rsa_key}
"""Every kind of audit key."""


def spki_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def note_key_of(key: PrivateKey) -> NoteKey:
    return read_note_key(spki_of(key))


def answer_of(key: PrivateKey, message: bytes) -> bytes:
    """What an HSM answers that signs with that audit key."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), SHA256())
    numbers = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
    return b"".join(number.to_bytes(32, "big") for number in numbers)


NOTE_KEY = note_key_of(KEY)


@dataclass
class Signer:
    """The HSM's part; `error` makes it fail."""

    key: PrivateKey = KEY
    error: HsmError | None = None
    signed: list[bytes] = field(default_factory=list)

    def __call__(self, body: bytes) -> Pending[bytes]:
        if self.error is not None:
            return failed(self.error)
        self.signed.append(body)
        return resolved(answer_of(self.key, body))


@dataclass
class Running:
    """A ledger that runs, with what it stands on."""

    ledger: LogLedger
    store: LocalStore
    recovery: Recovery
    folder: str

    async def commit(self, *writes: Write, **facts: str | int) -> Committed:
        entry = json.dumps(facts or {"method": "key.sign"})
        return await answer(self.ledger.commit(entry, writes))

    async def fill(self, count: int) -> None:
        pendings = [self.ledger.commit(json.dumps({"number": number})) for number in range(count)]
        for pending in pendings:
            await answer(pending)

    async def head(self) -> Head:
        return await answer(self.ledger.head())

    async def prove(self, index: int, old_size: int | None = None) -> Proof:
        return await answer(self.ledger.prove(index, old_size))


@asynccontextmanager
async def run_ledger(
    store: LocalStore,
    folder: str,
    rules: Rules = SLOW,
    signer: Callable[[bytes], Pending[bytes]] | None = None,
    *,
    key: NoteKey = NOTE_KEY,
    crash: bool = False,
    clock: Callable[[], int] | None = None,
) -> AsyncGenerator[Running]:
    """`crash`: end without the last checkpoint, as kill -9 would."""
    more = {} if clock is None else {"clock": clock}
    ledger = LogLedger(store, folder, origin=ORIGIN, key=key, sign=signer or Signer(), rules=rules, **more)
    recovery = await ledger.recover()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        yield Running(ledger, store, recovery, folder)
        nursery.cancel_scope.cancel()
    if not crash:
        await ledger.stop()


@asynccontextmanager
async def run_state(state: str, rules: Rules = SLOW, *, crash: bool = False) -> AsyncGenerator[Running]:
    """A ledger over SQLite in a state folder, which is made when it is not there."""
    os.makedirs(state, mode=0o700, exist_ok=True)
    async with (
        open_store(state) as store,
        run_ledger(store, os.path.join(state, "audit"), rules, crash=crash) as running,
    ):
        yield running


def memory_with(entries: Sequence[bytes]) -> MemoryStore:
    """A store whose log holds exactly `entries`: what somebody made of it behind the daemon's back."""
    store = MemoryStore()
    store._log.extend(entries)
    return store
