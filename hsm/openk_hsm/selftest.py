"""Known-answer tests of one HSM, through its lane: what a person asks for who doubts a device, a module or a cable.

Every check uses keys made for it, wrapped, and gone when it ends; or root keys, over messages that mean nothing else
(domain separation: `_MESSAGE`). Nothing is stored, nothing stays on the token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from time import monotonic
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from openk_hsm import audit_key
from openk_hsm.errors import (
    HsmError,
    InvalidCiphertext,
    Sealed,
    TokenMissing,
    TokenUninitialised,
    Unavailable,
    Unsupported,
    WrongPin,
)
from openk_hsm.pending import Pending
from openk_hsm.roots import ROOT_MAC, root_data
from openk_hsm.seam import (
    Algorithm,
    Buffer,
    Generated,
    KeyHandle,
    KeySpec,
    Lane,
    Mechanism,
    OpCode,
    Operation,
    Purpose,
    TokenInfo,
    Wrapped,
    Wrapper,
)

Check = Callable[[], Coroutine[Pending[object], None, str]]
"""Returns what to tell of a success. Raises `_Wrong`, HsmError."""
Handle = Callable[[KeySpec, Wrapped], KeyHandle]
"""A handle of this HSM with a slot of its own."""

DRAW: Final = 32
SHARED: Final = 32
_MESSAGE: Final = b"openk.selftest.1\x00"
"""Before everything that root keys are asked to answer: no checkpoint, name or binding begins so."""
_CONTEXT: Final = b"openk.selftest.1\x00context"
_OTHER: Final = b"openk.selftest.1\x00another"
_NONCE: Final = 12
_MAC: Final = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)
_SIGN: Final = KeySpec(Algorithm.P256, Purpose.SIGN)
_AGREE: Final = KeySpec(Algorithm.P256, Purpose.AGREE)
_WAYS: Final = {
    Algorithm.AES_256_GCM: (Mechanism.AES_GCM, _NONCE, 16),
    Algorithm.AES_256_CBC_HMAC: (Mechanism.AES_CBC_HMAC, _NONCE, 48),
    Algorithm.AES_256_CCM: (Mechanism.WRAP_DATA, 0, 62),
}
"""How a token seals data: mechanism, bytes of the nonce it is given, most bytes that a ciphertext is longer."""


_ABSENT: Final = (Unavailable, Sealed, WrongPin, TokenMissing, TokenUninitialised)


class Verdict(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` is for clients: no device's words, no secrets. `error`: for the log."""

    check: str
    verdict: Verdict
    text: str
    seconds: float
    error: HsmError | None = None


class _Wrong(Exception):
    """The answer is not what it must be."""


class Selftest:
    """`root`: this HSM's root wrapping keys. `room`: writable locked memory of `SHARED` bytes. `client`: whose turn the
    operations take in the lane's queue."""

    def __init__(
        self, lane: Lane, info: TokenInfo, root: Wrapper, handle: Handle, room: memoryview, client: int
    ) -> None:
        self._lane = lane
        self._info = info
        self._root = root
        self._handle = handle
        self._room = room
        self._client = client
        self._opened: list[KeyHandle] = []
        self._checks: Mapping[str, Check] = {
            "random": self._random,
            "hmac": self._hmac,
            "audit-key": self._audit_key,
            "signature": self._signature,
            "agreement": self._agreement,
            "wrapping": self._wrapping,
            "context": self._context,
            "blob": self._blob,
            "sealing": self._sealing,
            "seal": self._seal,
        }

    @property
    def names(self) -> Sequence[str]:
        return list(self._checks)

    async def run(self, name: str) -> Finding:
        """One check, from its start to the last key it gives back. Raises KeyError for a name that is none, HsmError
        where there is no HSM to be tested."""
        check = self._checks[name]
        began = monotonic()
        error: HsmError | None = None
        try:
            verdict, text = Verdict.OK, await check()
        except Unsupported:
            verdict, text = Verdict.UNSUPPORTED, "this token does not do that, or not with wrapped keys"
        except _Wrong as wrong:
            verdict, text = Verdict.FAILED, str(wrong)
        except _ABSENT:
            raise
        except HsmError as failed:
            verdict, text, error = Verdict.FAILED, f"the HSM answered with the error {failed.code}", failed
        finally:
            for key in self._opened:
                self._lane.unload(key)
            self._opened.clear()
        return Finding(name, verdict, text, monotonic() - began, error)

    # --- the checks ---

    async def _random(self) -> str:
        first, second = await self._draw(), await self._draw()
        _must(first != second, "two draws of 32 bytes are the same")
        _must(len(set(first)) > 1 and len(set(second)) > 1, "32 random bytes are all alike")
        return f"two draws of {DRAW} bytes differ"

    async def _hmac(self) -> str:
        key = self._at_root(ROOT_MAC)
        short, long = _MESSAGE + b"short", _MESSAGE + bytes(1000)
        answers = [await self._mac(key, data) for data in (short, short, long)]
        _must(all(len(answer) == 32 for answer in answers), "an HMAC has another length than 32 bytes")
        _must(answers[0] == answers[1], "the same input had two HMACs")
        _must(answers[0] != answers[2], "two inputs had the same HMAC")
        return "the root's HMAC key answers alike to the same, otherwise to another"

    async def _audit_key(self) -> str:
        if not self._info.audit_public or self._info.audit is None:
            raise Unsupported("this token has no audit key")
        audit, public = audit_key.load_public(self._info.audit_public)
        if audit is not self._info.audit:
            raise _Wrong(f"the audit key is no {self._info.audit} key")
        message = _MESSAGE + await self._draw()
        answer = await self._answer(audit_key.signing(audit, message, self._root.mac.hsm))
        signature = audit_key.signature_of(audit, answer)
        _must(audit_key.verifies(public, message, signature), "its signature does not verify")
        changed = message + b"\x01"
        _must(not audit_key.verifies(public, changed, signature), "a signature verifies for another message")
        return f"signs ({audit}); verified without the HSM"

    async def _signature(self) -> str:
        made = await self._generate(_SIGN)
        public = load_der_public_key(made.public or b"")
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise _Wrong("a P-256 key came with another public key")
        digest = hashlib.sha256(_MESSAGE + await self._draw()).digest()
        key = self._load(_SIGN, made)
        answer = await self._answer(Operation(OpCode.SIGN, 64, key, Mechanism.ECDSA, digest))
        half = len(answer) // 2
        signature = utils.encode_dss_signature(
            int.from_bytes(answer[:half], "big"), int.from_bytes(answer[half:], "big")
        )
        algorithm = ec.ECDSA(utils.Prehashed(SHA256()))
        _must(_holds(lambda: public.verify(signature, digest, algorithm)), "its signature does not verify")
        return "a new P-256 key signs; verified without the HSM"

    async def _agreement(self) -> str:
        made = await self._generate(_AGREE)
        public = load_der_public_key(made.public or b"")
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise _Wrong("a P-256 key came with another public key")
        peer = ec.generate_private_key(ec.SECP256R1())
        point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        key = self._load(_AGREE, made)
        operation = Operation(OpCode.AGREE, SHARED, key, Mechanism.ECDH, point, into=self._room, client=self._client)
        length = await self._lane.submit(operation)
        # The other side is made here: this secret protects nothing.
        same = length == SHARED and compare_digest(self._room[:SHARED], peer.exchange(ec.ECDH(), public))
        _must(same, "the two sides do not agree")
        return "a new P-256 key agrees with one outside the HSM"

    async def _wrapping(self) -> str:
        made = await self._generate(_MAC)
        first, second = self._load(_MAC, made), self._load(_MAC, made)
        _must(await self._mac(first, _MESSAGE) == await self._mac(second, _MESSAGE), "unwrapped twice, it is two keys")
        return "a key wrapped once and unwrapped twice is the same key"

    async def _context(self) -> str:
        made = await self._generate(_MAC)
        await self._refuses(self._load(_MAC, made, _OTHER), "a wrapped key opens under another context")
        return "a wrapped key under another context is refused"

    async def _blob(self) -> str:
        made = await self._generate(_MAC)
        blob = bytearray(_blob_of(made))
        blob[-1] ^= 1
        await self._refuses(self._load(_MAC, Generated(bytes(blob), None)), "a changed wrapped key opens")
        return "a wrapped key with one bit changed is refused"

    async def _sealing(self) -> str:
        key, mechanism, sealed, nonce, plain = await self._sealed()
        opened = await self._open(key, mechanism, sealed, nonce, _CONTEXT, len(plain))
        _must(opened == plain, "what was sealed opens as something else")
        return "what was sealed opens"

    async def _seal(self) -> str:
        key, mechanism, sealed, nonce, plain = await self._sealed()
        changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        for what, ciphertext, context in (
            ("a changed tag", changed, _CONTEXT),
            ("other associated data", sealed, _OTHER),
        ):
            try:
                await self._open(key, mechanism, ciphertext, nonce, context, len(plain))
            except InvalidCiphertext:
                continue
            raise _Wrong(f"a ciphertext opens with {what}")
        return "a changed tag and other associated data are refused"

    # --- their parts ---

    async def _answer(self, operation: Operation) -> bytes:
        operation.client = self._client
        answer = await self._lane.submit(operation)
        if not isinstance(answer, bytes):
            raise _Wrong("the lane answered a length where bytes were asked for")
        return answer

    async def _draw(self) -> bytes:
        drawn = await self._answer(Operation(OpCode.RANDOM, DRAW))
        _must(len(drawn) == DRAW, "too few random bytes")
        return drawn

    async def _mac(self, key: KeyHandle, data: bytes) -> bytes:
        return await self._answer(Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, data))

    async def _generate(self, spec: KeySpec) -> Generated:
        if spec not in self._info.wrapped:
            raise Unsupported("not with wrapped keys")
        return await self._lane.generate(spec, self._root, _CONTEXT)

    def _load(self, spec: KeySpec, made: Generated, context: bytes = _CONTEXT) -> KeyHandle:
        key = self._handle(spec, Wrapped(self._root, context, _blob_of(made)))
        self._opened.append(key)
        return key

    async def _refuses(self, key: KeyHandle, otherwise: str) -> None:
        try:
            await self._mac(key, _MESSAGE)
        except InvalidCiphertext:
            return
        raise _Wrong(otherwise)

    async def _sealed(self) -> tuple[KeyHandle, Mechanism, bytes, bytes, bytes]:
        """A ciphertext with what opens it: key, mechanism, ciphertext, nonce, plaintext."""
        mechanism, size, longer = _WAYS[self._info.data]
        plain = _MESSAGE + await self._draw()
        key = await self._data_key()
        nonce = (await self._draw())[:size]
        operation = Operation(OpCode.ENCRYPT, len(plain) + longer, key, mechanism, plain, aad=_CONTEXT, param=nonce)
        sealed = await self._answer(operation)
        _must(plain not in sealed, "the plaintext is in the ciphertext")
        return key, mechanism, sealed, nonce, plain

    async def _data_key(self) -> KeyHandle:
        """One for this check alone; where a token cannot wrap such keys, root's, whose nonces are the token's own."""
        spec = KeySpec(self._info.data, Purpose.ENCRYPT)
        if self._info.data is Algorithm.AES_256_CCM:
            return self._at_root(root_data(self._info.data))
        return self._load(spec, await self._lane.generate(spec, self._root, _CONTEXT))

    def _at_root(self, key: KeyHandle) -> KeyHandle:
        return KeyHandle(key.slot, key.spec, key.source, self._root.mac.hsm)

    async def _open(
        self, key: KeyHandle, mechanism: Mechanism, sealed: bytes, nonce: Buffer, context: bytes, room: int
    ) -> bytes:
        return await self._answer(Operation(OpCode.DECRYPT, room, key, mechanism, sealed, aad=context, param=nonce))


def _blob_of(made: Generated) -> bytes:
    if made.blob is None:
        raise _Wrong("the HSM gave no wrapped key")
    return made.blob


def _must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - a fact that was established
    if not holds:
        raise _Wrong(otherwise)


def _holds(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True
