"""Whether tokens have the same root keys: each is asked questions whose answers only those keys give.

    mac, kw   a key that one token made and wrapped opens on the other and answers the same
    data      what one token sealed opens on the other
    audit     the public keys are equal

Asked over a link before any work goes there, at each connect: a token that was restored from an old backup, or set up
on its own, would otherwise make keys that the others cannot open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from time import monotonic
from typing import Final

import trio

from openk_hsm import frames
from openk_hsm.errors import Diverged, HsmError, InvalidCiphertext, TimedOut
from openk_hsm.fair_queue import FairQueue
from openk_hsm.link import Cold, Link
from openk_hsm.roots import AUDIT_KEY, ROOT, ROOT_DATA, ROOT_MAC
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Replay, Wrapped

GROUP: Final = b"g"
"""Begins a group's identity, which is one byte longer than a token's."""
_QUESTION: Final = b"openk.group.1: which root keys are these?"
_CONTEXT: Final = b"openk.group.1: a key that shows its wrapping key"
_SLOT: Final = AUDIT_KEY.slot + 1
"""Between the root keys' slots and the first that the daemon gives away."""
_SPEC: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
_WITHIN: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a token with the right root keys says and opens. `probe`: a key wrapped under them."""

    root: bytes
    audit: bytes
    probe: KeyHandle
    probed: bytes
    nonce: bytes
    sealed: bytes

    @property
    def identity(self) -> bytes:
        return GROUP + hashlib.sha256(b"openk.group\0" + self.root + self.audit).digest()


def is_group_identity(identity: bytes) -> bool:
    """Whether that is a group's `TokenInfo.identity`, not a token's."""
    return len(identity) == len(GROUP) + hashlib.sha256().digest_size


class Kinship:
    """One for each group. The first token that answers sets what the others must say; `expected` says who may."""

    def __init__(self, expected: bytes | None = None) -> None:
        """`expected`: the identity that the group had before."""
        self._expected = expected
        self._known: _Answers | None = None
        self._turn = trio.Lock()

    def expect(self, identity: bytes) -> None:
        self._expected = identity

    @property
    def identity(self) -> bytes | None:
        """The group's: a digest over the root keys' answers. None until a token was asked."""
        return None if self._known is None else self._known.identity

    async def prove(self, link: Link) -> None:
        """Raises Diverged when the link's token has other root keys; HsmError, OSError, BadFrame when it cannot say."""
        if link.info.data is not Algorithm.AES_256_GCM or link.info.resident_vaults:
            raise Diverged("a group needs tokens that wrap keys and seal with AES-GCM: others cannot share root keys")
        async with self._turn:
            if self._known is None:
                learned = await _learn(link)
                if self._expected is not None and learned.identity != self._expected:
                    raise Diverged("the token's root keys are not those that this group had before")
                self._known = learned
            else:
                await _compare(link, self._known)


async def _learn(link: Link) -> _Answers:
    blob = frames.generated_from_wire(await _call(link, "generate", frames.spec_to_wire(_SPEC))).blob
    if blob is None:
        raise Diverged("the token does not wrap keys")
    probe = KeyHandle(_SLOT, _SPEC, Wrapped(ROOT, _CONTEXT, blob))
    nonce = os.urandom(12)  # one of the root key's 2^32 random nonces (SP 800-38D, 8.3) a start
    seal = Operation(OpCode.ENCRYPT, len(_QUESTION) + 16, ROOT_DATA, Mechanism.AES_GCM, _QUESTION, _CONTEXT, nonce)
    root, probed, sealed = await _mac(link, ROOT_MAC), await _mac(link, probe), await _ask(link, seal)
    link.unload(_SLOT)
    return _Answers(root, link.info.audit_public, probe, probed, nonce, sealed)


async def _compare(link: Link, known: _Answers) -> None:
    if not hmac.compare_digest(await _mac(link, ROOT_MAC), known.root):
        raise Diverged(f"the token {link.info.label!r} has another root mac key than its group")
    if link.info.audit_public != known.audit:
        raise Diverged(f"the token {link.info.label!r} has another audit key than its group")
    try:
        probed = await _mac(link, known.probe)
    except InvalidCiphertext as error:
        raise Diverged(f"the token {link.info.label!r} has another wrapping key than its group") from error
    if not hmac.compare_digest(probed, known.probed):
        raise Diverged(f"the token {link.info.label!r} opens a key of its group as another one")
    link.unload(_SLOT)
    room = len(known.sealed)
    opening = Operation(OpCode.DECRYPT, room, ROOT_DATA, Mechanism.AES_GCM, known.sealed, _CONTEXT, known.nonce)
    try:
        opened = await _ask(link, opening)
    except InvalidCiphertext as error:
        raise Diverged(f"the token {link.info.label!r} has another data key than its group") from error
    if opened != _QUESTION:
        raise Diverged(f"the token {link.info.label!r} opens what its group sealed as something else")


async def _mac(link: Link, key: KeyHandle) -> bytes:
    return await _ask(link, Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, _QUESTION))


async def _ask(link: Link, operation: Operation) -> bytes:
    single = FairQueue(1, 1)
    single.push(operation)
    operation.expires = monotonic() + _WITHIN
    link.send_batch(single, monotonic())
    await _until(link, operation)
    answer = operation.pending.result()
    if not isinstance(answer, bytes):
        raise HsmError("a link answered a length where bytes were asked for")
    return answer


async def _call(link: Link, method: str, spec: object) -> object:
    call = Cold(method, (spec, ROOT.kw.slot, ROOT.mac.slot, _CONTEXT), Replay.PURE, monotonic() + _WITHIN, _WITHIN)
    link.send_cold(call, monotonic())
    await _until(link, call)
    return call.pending.result()


async def _until(link: Link, asked: Operation | Cold) -> None:
    """Read the link, which nobody else does yet."""
    with trio.move_on_after(_WITHIN):
        while not asked.pending.settled:
            await trio.lowlevel.wait_readable(link.socket)
            link.receive()
        return
    raise TimedOut("the token does not say in time whether its root keys are its group's")
