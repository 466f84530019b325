"""An HSM in memory, for tests and development: honest about what it does, protects nothing.

It keeps every rule of `openk_hsm.seam.Backend` with `cryptography`, the binding of wrapped keys included, so
that what passes on it has a fair chance on a token.  Keys are ordinary Python objects: whoever builds one
must say `allow=True`, which only --dev and tests do.  With `state` it keeps its token objects in a file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openk_hsm import binding, software_keys
from openk_hsm.errors import (
    HsmError,
    InvalidCiphertext,
    InvalidInput,
    TokenUninitialised,
    Unsupported,
    Untrusted,
    WrongPin,
)
from openk_hsm.roots import AUDIT_KEY, ROOT_DATA, ROOT_KW, ROOT_MAC, name_of
from openk_hsm.seam import Algorithm, Generated, KeySpec, Mechanism, Notice, ObjectInfo, OpCode, TokenInfo
from openk_hsm.software_keys import Material
from openk_hsm.software_state import load_state, save_state
from openk_hsm.specs import GCM_NONCE, GCM_TAG, MECHANISMS, OPCODES

ROOTS: Final = (ROOT_KW, ROOT_DATA, ROOT_MAC, AUDIT_KEY)
IDENTITY_QUESTION: Final = b"openk.token-identity.1"


@dataclass(frozen=True, slots=True)
class _Loaded:
    spec: KeySpec
    material: Material
    wrapping_id: bytes


class SoftwareBackend:
    """A token in this process's heap.

    `pin`: what `open` expects, or None for any. `roots`: make missing root keys at `open`, as `openk-hsm init`
    would. `state`: a file (0600) that holds the token objects in clear between processes. `hang`: a sign operation
    whose data begin with this never returns, once (a vendor library's fault); with `state`, once for all processes.
    """

    def __init__(
        self,
        *,
        allow: bool,
        pin: bytes | None = None,
        roots: bool = True,
        state: Path | None = None,
        hang: str = "",
    ) -> None:
        if not allow:
            raise HsmError("the software HSM protects nothing: it is refused outside --dev and tests")
        self._pin = pin
        self._roots = roots
        self._state = state
        self._hang = hang.encode()
        self._region = memoryview(bytearray())
        self._token: dict[tuple[str, bytes], tuple[KeySpec, Material]] = {}
        self._slots: dict[int, _Loaded] = {}

    def open(self, region: memoryview, address: int, pin: Callable[[], memoryview]) -> TokenInfo:  # noqa: ARG002 - only vendors need an address
        if self._pin is not None and not hmac.compare_digest(self._pin, pin()):
            raise WrongPin("the software HSM did not accept the PIN", device="CKR_PIN_INCORRECT")
        self._region = region
        self._slots.clear()
        if self._state is not None:
            self._token = load_state(self._state)
        self._open_roots()
        answer = hmac.digest(self._secret(ROOT_MAC.slot), IDENTITY_QUESTION, "sha256")
        return TokenInfo(
            backend="software",
            label="openk-software",
            serial="0",
            model="software",
            firmware="1.0",
            identity=hashlib.sha256(b"0\x00software\x00" + answer).digest(),
            resident=frozenset(MECHANISMS),
            wrapped=frozenset(MECHANISMS),
            mechanisms=tuple(mechanism.name for mechanism in OPCODES),
            audit_public=software_keys.public_der(self._loaded(AUDIT_KEY.slot).material) or b"",
        )

    def _open_roots(self) -> None:
        for root in ROOTS:
            label, id_ = name_of(root)
            if (label, id_) not in self._token:
                if not self._roots:
                    raise TokenUninitialised("the token has no root keys: run `openk-hsm init`")
                self.generate_resident(root.spec, label, id_)
            self.load_resident(root.slot, root.spec, label, id_)

    def random(self, at: int, length: int) -> int:
        self._region[at : at + length] = os.urandom(length)
        return length

    def mac(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        self._key(slot, OpCode.MAC, mechanism)
        name = {Mechanism.HMAC_SHA_256: "sha256", Mechanism.HMAC_SHA_384: "sha384"}.get(mechanism, "sha512")
        return self._answer(hmac.digest(self._secret(slot), self._region[at : at + length], name), out, room)

    def sign(self, slot: int, mechanism: Mechanism, at: int, length: int, out: int, room: int) -> int:
        key = self._key(slot, OpCode.SIGN, mechanism)
        if self._hang and bytes(self._region[at : at + length]).startswith(self._hang):
            self._hang_once()
        return self._answer(
            software_keys.sign(key.material, mechanism, bytes(self._region[at : at + length])), out, room
        )

    def encrypt(
        self,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int:
        self._key(slot, OpCode.ENCRYPT, mechanism)
        nonce = self._nonce(param)
        sealed = AESGCM(self._secret(slot)).encrypt(nonce, bytes(self._slice(data)), bytes(self._slice(aad)))
        return self._answer(sealed, out, room)

    def decrypt(
        self,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int:
        key = self._key(slot, OpCode.DECRYPT, mechanism)
        if mechanism is not Mechanism.AES_GCM:
            return self._answer(software_keys.oaep(key.material, mechanism, bytes(self._slice(data))), out, room)
        nonce = self._nonce(param)
        if data[1] < GCM_TAG:
            raise InvalidCiphertext("a GCM ciphertext is shorter than its tag")
        try:
            opened = AESGCM(self._secret(slot)).decrypt(nonce, bytes(self._slice(data)), bytes(self._slice(aad)))
        except InvalidTag:
            raise InvalidCiphertext("a GCM tag does not match") from None
        return self._answer(opened, out, room)

    def agree(self, slot: int, at: int, length: int, out: int, room: int) -> int:
        key = self._key(slot, OpCode.AGREE, Mechanism.ECDH)
        return self._answer(software_keys.agree(key.material, bytes(self._region[at : at + length])), out, room)

    def load_resident(self, slot: int, spec: KeySpec, label: str, id_: bytes) -> None:
        found = self._token.get((label, id_))
        if found is None:
            raise HsmError(f"the token has no object {label!r}", device="CKR_OBJECT_HANDLE_INVALID")
        if found[0] != spec:
            raise Untrusted(f"the object {label!r} is not of the spec expected")
        self._slots[slot] = _Loaded(spec, found[1], binding.resident_id(label, id_))

    def load_wrapped(self, slot: int, spec: KeySpec, kw: int, mac: int, context: bytes, blob: bytes) -> None:
        wrapping = self._wrapping(kw)
        head, tag, kwp = binding.split(blob, spec, wrapping.wrapping_id)
        if not hmac.compare_digest(tag, self._bind(mac, binding.authenticated(head, context, kwp))):
            raise binding.unbound()
        try:
            opened = keywrap.aes_key_unwrap_with_padding(self._secret(kw), kwp)
        except keywrap.InvalidUnwrap:
            raise InvalidCiphertext("a wrapped key does not unwrap") from None
        self._slots[slot] = _Loaded(spec, software_keys.parse(spec, opened), binding.wrapped_id(spec, context))

    def unload(self, slot: int) -> None:
        self._slots.pop(slot, None)

    def generate(self, spec: KeySpec, kw: int, mac: int, context: bytes) -> Generated:
        wrapping = self._wrapping(kw)
        material = self._make(spec)
        kwp = keywrap.aes_key_wrap_with_padding(self._secret(kw), software_keys.encode(material))
        head = binding.header(spec, wrapping.wrapping_id)
        tag = self._bind(mac, binding.authenticated(head, context, kwp))
        return Generated(binding.assemble(head, tag, kwp), software_keys.public_der(material))

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Generated:
        if (label, id_) in self._token:
            raise Untrusted(f"the token has an object {label!r} already")
        material = self._make(spec)
        self._token[label, id_] = (spec, material)
        self._save()
        return Generated(None, software_keys.public_der(material))

    def destroy_resident(self, label: str, id_: bytes) -> bool:
        found = self._token.pop((label, id_), None)
        self._save()
        return found is not None

    def objects(self) -> Sequence[ObjectInfo]:
        return [
            ObjectInfo(label, id_, "secret" if isinstance(material, bytes) else "private", spec.algorithm)
            for (label, id_), (spec, material) in self._token.items()
        ]

    def attest(self, label: str, id_: bytes) -> Sequence[bytes]:  # noqa: ARG002 - the seam's
        raise Unsupported("the software HSM cannot attest: whoever can read its memory has its keys")

    def notices(self, after: int) -> Sequence[Notice]:  # noqa: ARG002 - the seam's
        return ()

    def health(self) -> Mapping[str, str]:
        return {"backend": "software", "loaded": str(len(self._slots))}

    def close(self) -> None:
        self._slots.clear()

    def _hang_once(self) -> None:
        if self._state is not None:
            try:
                self._state.with_suffix(".hung").touch(exist_ok=False)
            except FileExistsError:
                return
        self._hang = b""
        while True:
            time.sleep(3600)

    def _save(self) -> None:
        if self._state is not None:
            save_state(self._state, self._token)

    def _make(self, spec: KeySpec) -> Material:
        if spec not in MECHANISMS:
            raise Unsupported(f"the software HSM has no {spec.algorithm} for {spec.purpose}")
        return software_keys.make(spec.algorithm)

    def _loaded(self, slot: int) -> _Loaded:
        key = self._slots.get(slot)
        if key is None:
            raise HsmError(f"no key is loaded in slot {slot}", device="CKR_KEY_HANDLE_INVALID")
        return key

    def _key(self, slot: int, code: OpCode, mechanism: Mechanism) -> _Loaded:
        key = self._loaded(slot)
        if mechanism not in MECHANISMS[key.spec] or code not in OPCODES[mechanism]:
            raise InvalidInput("the key is not for this mechanism", device="CKR_KEY_FUNCTION_NOT_PERMITTED")
        return key

    def _wrapping(self, slot: int) -> _Loaded:
        key = self._loaded(slot)
        if key.spec.algorithm is not Algorithm.AES_256_KWP:
            raise InvalidInput("the key is not a wrapping key", device="CKR_KEY_FUNCTION_NOT_PERMITTED")
        return key

    def _bind(self, slot: int, message: bytes) -> bytes:
        self._key(slot, OpCode.MAC, Mechanism.HMAC_SHA_256)
        return hmac.digest(self._secret(slot), message, "sha256")

    def _secret(self, slot: int) -> bytes:
        material = self._loaded(slot).material
        if not isinstance(material, bytes):
            raise InvalidInput("the key is not a secret key", device="CKR_KEY_TYPE_INCONSISTENT")
        return material

    def _slice(self, span: tuple[int, int]) -> memoryview:
        return self._region[span[0] : span[0] + span[1]]

    def _nonce(self, span: tuple[int, int]) -> bytes:
        if span[1] != GCM_NONCE:
            raise InvalidInput("an AES-GCM nonce has 12 bytes")
        return bytes(self._slice(span))

    def _answer(self, value: bytes, out: int, room: int) -> int:
        if len(value) > room:
            raise InvalidInput("the answer does not fit", device="CKR_BUFFER_TOO_SMALL")
        self._region[out : out + len(value)] = value
        return len(value)
