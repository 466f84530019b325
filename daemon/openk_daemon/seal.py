"""The seal: while it is closed no key and no secret is at hand, in no process, and the answer is `daemon.sealed`.

Closing it wipes cached keys, hands every session object back, cuts connections that hold secrets, and makes the
workers log out of their HSMs and end. It is a record of the store, written with the audit record that tells of it, so
a restart finds it closed; the workers keep a mark of their own (openk_hsm.seal). Opening it takes an operator whom
policy allows `system.unseal`, and a login of a worker with the PIN that it reads anew from its own source.

    record "seal", id "":       body `closed` or `open`; absent: never closed
    record "hsm-token", id "":  the first HSM's TokenInfo as workers tell it (openk_hsm.frames), for a start without it
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from openk_daemon.store.seam import Store, Write
from openk_hsm import frames
from openk_hsm.pending import Pending
from openk_hsm.seam import TokenInfo

RECORD: Final = "seal"
TOKEN: Final = "hsm-token"  # noqa: S105 - a kind of record
_ID: Final = b""
_CLOSED: Final = b"closed"
_OPEN: Final = b"open"


class Sealable(Protocol):
    """openk_daemon.lanes.Lanes."""

    @property
    def sealed(self) -> Sequence[str]:
        """Names of the HSMs whose workers are sealed."""
        ...

    def seal(self) -> None: ...

    def unseal(self) -> Coroutine[Pending[object], None, list[str]]:
        """Those of them that are logged in anew. Raises HsmError where the first HSM is sealed and stays so."""
        ...

    def admit(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store knows. `revision`: of the record of the seal, 0 for none; `token`: None before the first start
    has ended well, `token_revision` likewise."""

    closed: bool
    revision: int
    token: TokenInfo | None
    token_revision: int


async def read_kept(store: Store) -> Kept:
    """Raises StoreError; BadFrame for a token record of another version of openk."""
    seal = await store.read(RECORD, _ID)
    token = await store.read(TOKEN, _ID)
    info = None if token is None else frames.info_from_wire(frames.unpack_body(memoryview(token.body)))
    return Kept(
        closed=seal is not None and seal.body == _CLOSED,
        revision=0 if seal is None else seal.version,
        token=info,
        token_revision=0 if token is None else token.version,
    )


def token_record(kept: Kept, token: TokenInfo) -> Write | None:
    """What to write so that a start without the HSM knows `token`; None where the store has it."""
    if kept.token == token:
        return None
    body = frames.pack_body(frames.READY, frames.info_to_wire(token))
    return Write(TOKEN, _ID, kept.token_revision, body)


class Seal:
    """`closed` is read by whoever wants to know; `close` and `open` are steps to take once it is durable."""

    def __init__(self, lanes: Sealable, kept: Kept, wipe: Callable[[], None]) -> None:
        """`wipe` forgets every key and secret of this process."""
        self.closed = kept.closed
        self.lanes = lanes
        self._wipe = wipe
        self._revision = kept.revision

    def record(self, *, closed: bool) -> Write:
        """The write that makes the next state durable; `recorded` once it is."""
        return Write(RECORD, _ID, self._revision, _CLOSED if closed else _OPEN)

    def recorded(self) -> None:
        self._revision += 1

    def close(self) -> None:
        """Idempotent. The workers go first: what is wiped here must not come back from there."""
        self.closed = True
        self.lanes.seal()
        self._wipe()

    def open(self) -> None:
        """After `lanes.unseal` succeeded."""
        self.closed = False
        self.lanes.admit()
