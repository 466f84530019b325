"""The PKCS#11 back end: one token, one thread, two sessions.

One session holds the objects (session objects die with the session that made them), the other runs the hot
operations.  Both see the login, which belongs to the application (PKCS#11 v3.1, section 5.6.6).
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from openk_hsm import binding
from openk_hsm.errors import HsmError, InvalidInput, TokenUninitialised, Unsupported, Untrusted, WrongPin
from openk_hsm.pkcs11 import codes, templates
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.discovery import TokenFound, choose_token, list_mechanisms, list_tokens, load_module
from openk_hsm.pkcs11.hot import Hot
from openk_hsm.pkcs11.module import Module, Ulong
from openk_hsm.pkcs11.objects import Objects
from openk_hsm.pkcs11.probe import Capabilities, probe
from openk_hsm.seam import (
    AUDIT_KEY,
    ROOT_DATA,
    ROOT_KW,
    ROOT_MAC,
    Algorithm,
    Generated,
    KeyHandle,
    KeySpec,
    Mechanism,
    Notice,
    ObjectInfo,
    Purpose,
    Resident,
    TokenInfo,
)
from openk_hsm.specs import MECHANISMS
from openk_hsm.uri import HsmUri

ROOTS: Final = (ROOT_KW, ROOT_DATA, ROOT_MAC, AUDIT_KEY)
IDENTITY_QUESTION: Final = b"openk.token-identity.1"
_LOGIN_TRIES: Final = 5
_KINDS: Final = {
    ck.CKO_DATA: "data",
    ck.CKO_CERTIFICATE: "certificate",
    ck.CKO_PUBLIC_KEY: "public",
    ck.CKO_PRIVATE_KEY: "private",
    ck.CKO_SECRET_KEY: "secret",
}


class Pkcs11Backend:
    """`openk_hsm.seam.Backend` on a PKCS#11 token. `close` logs out and wipes nothing (the region is its owner's)."""

    def __init__(self, uri: HsmUri, *, roots: bool = True) -> None:
        """`roots` False: for `openk-hsm init`, a token without root keys opens."""
        self._uri = uri
        self._roots = roots
        self._scratch = ctypes.create_string_buffer(64)
        self._wrapping_ids: dict[int, bytes] = {}
        self._resident: set[int] = set()

    def load(self) -> None:
        """Load and initialise the module; it stays for the life of the process. Raises HsmError."""
        load_module(self._uri.module)

    def log_in(self, pin: Callable[[], memoryview]) -> TokenFound:
        """Load the module, find the token, log in. Raises WrongPin after exactly one try.
        `open` does it when nobody did."""
        self._module: Module = load_module(self._uri.module)
        self._token = choose_token(list_tokens(self._uri.module), self._uri)
        self._mechanisms = frozenset(list_mechanisms(self._uri.module, self._token.slot))
        self._keeper = self._open_session()
        self._login(pin)
        self._worker = self._open_session()
        kwp = ck.CKM_AES_KEY_WRAP_PAD if ck.CKM_AES_KEY_WRAP_PAD in self._mechanisms else ck.CKM_AES_KEY_WRAP_KWP
        self._objects = Objects(self._module, self._keeper, kwp)
        return self._token

    def open(self, region: memoryview, address: int, pin: Callable[[], memoryview]) -> TokenInfo:  # noqa: ARG002 - the module needs only the address
        if not hasattr(self, "_objects"):
            self.log_in(pin)
        if hasattr(self, "_hot"):
            self._forget()
        self._hot = Hot(self._module, self._worker, address)
        self.random = self._hot.random
        self.mac = self._hot.mac
        self.sign = self._hot.sign
        self.encrypt = self._hot.encrypt
        self.decrypt = self._hot.decrypt
        self.agree = self._hot.agree
        spec = KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT)
        known, _ = self._objects.generate(spec, [], token=False, extractable=False)
        self._known = known
        self._hot.learn_answer(known)
        if not self._roots:
            return self._info(b"", b"")
        for root in ROOTS:
            self._load_root(root)
        return self._info(self._ask(ROOT_MAC.slot, IDENTITY_QUESTION), self._audit_public())

    def _forget(self) -> None:
        """Another daemon (or the same again) opens: nothing that the last one loaded stays."""
        for slot in list(self._hot.keys):
            self.unload(slot)
        self._objects.destroy(self._known)

    def _open_session(self) -> int:
        session = Ulong()
        flags = ck.CKF_SERIAL_SESSION | ck.CKF_RW_SESSION
        check(self._module.open_session(self._token.slot, flags, None, None, ctypes.byref(session)), "C_OpenSession")
        return session.value

    def _login(self, pin: Callable[[], memoryview]) -> None:
        if self._token.pin_trouble == "locked":
            raise WrongPin("the token's PIN is locked: its security officer must reset it", device="CKR_PIN_LOCKED")
        secret = pin()
        if not len(secret):
            raise WrongPin("the PIN is empty: nothing was tried. Check the credential", device="")
        address = ctypes.addressof(ctypes.c_char.from_buffer(secret))
        code = codes.CKR_GENERAL_ERROR
        for attempt in range(_LOGIN_TRIES):  # two processes in C_Login at once: SoftHSM2 answers GENERAL_ERROR to one
            code = self._module.login(self._keeper, ck.CKU_USER, address, len(secret))
            if code != codes.CKR_GENERAL_ERROR:
                break
            time.sleep(0.01 * (attempt + 1))
        if code != codes.CKR_USER_ALREADY_LOGGED_IN:
            check(code, "C_Login")

    def _load_root(self, root: KeyHandle) -> None:
        source = root.source
        if not isinstance(source, Resident):
            raise TypeError("a root key is resident")
        if not self._objects.keys_named(source.label, source.id):
            raise TokenUninitialised(f"the token {self._token.label!r} has no {source.label}: run `openk-hsm init`")
        self.load_resident(root.slot, root.spec, source.label, source.id)

    def _info(self, answer: bytes, audit_public: bytes) -> TokenInfo:
        token = self._token
        named = f"{token.serial}\x00{token.model}\x00".encode()
        able = self._probe()
        return TokenInfo(
            backend="pkcs11",
            label=token.label,
            serial=token.serial,
            model=token.model,
            firmware=token.firmware,
            identity=hashlib.sha256(named + answer).digest(),
            resident=able.resident,
            wrapped=able.wrapped,
            mechanisms=tuple(sorted(mechanism.name for mechanism in able.mechanisms)),
            audit_public=audit_public,
        )

    def _probe(self) -> Capabilities:
        spec = KeySpec(Algorithm.AES_256_KWP, Purpose.KEY_WRAP)
        kw, _ = self._objects.generate(spec, [], token=False, extractable=False)
        try:
            return probe(self._objects, kw, self._mechanisms)
        finally:
            self._objects.destroy(kw)

    def _audit_public(self) -> bytes:
        source = AUDIT_KEY.source
        if not isinstance(source, Resident):
            raise TypeError("the audit key is resident")
        rows = [*templates.named(source.label, source.id), (ck.CKA_CLASS, ck.CKO_PUBLIC_KEY)]
        found = self._objects.find(rows)
        if len(found) != 1:
            raise Untrusted(f"the token has {len(found)} public keys named {source.label}")
        return self._objects.public_key(found[0], AUDIT_KEY.spec)

    def load_resident(self, slot: int, spec: KeySpec, label: str, id_: bytes) -> None:
        found = self._objects.keys_named(label, id_)
        if len(found) > 1:
            raise Untrusted(f"the token has {len(found)} keys named {label!r}: openk uses none of them")
        if not found:
            raise HsmError(f"the token has no key named {label!r}", device="CKR_OBJECT_HANDLE_INVALID")
        self._objects.assert_ours(found[0], spec, token=True)
        self._hot.add(slot, found[0], spec)
        self._resident.add(slot)
        self._wrapping_ids[slot] = binding.resident_id(label, id_)

    def load_wrapped(self, slot: int, spec: KeySpec, kw: int, mac: int, context: bytes, blob: bytes) -> None:
        wrapping = self._wrapping(kw)
        head, tag, kwp = binding.split(blob, spec, self._wrapping_ids[kw])
        if not hmac.compare_digest(tag, self._ask(mac, binding.authenticated(head, context, kwp))):
            raise binding.unbound()
        handle = self._objects.unwrap(wrapping, spec, kwp)
        try:
            self._objects.assert_ours(handle, spec, token=False)
        except HsmError:
            self._objects.destroy(handle)
            raise
        self.unload(slot)
        self._hot.add(slot, handle, spec)
        self._wrapping_ids[slot] = binding.wrapped_id(spec, context)

    def unload(self, slot: int) -> None:
        handle = self._hot.remove(slot)
        self._wrapping_ids.pop(slot, None)
        if slot in self._resident:
            self._resident.discard(slot)
        elif handle is not None:
            self._objects.destroy(handle)

    def generate(self, spec: KeySpec, kw: int, mac: int, context: bytes) -> Generated:
        self._require(spec)
        wrapping = self._wrapping(kw)
        handle, public = self._objects.generate(spec, [], token=False, extractable=True)
        try:
            kwp = self._objects.wrap(wrapping, handle)
        finally:
            self._objects.destroy(handle)
        head = binding.header(spec, self._wrapping_ids[kw])
        tag = self._ask(mac, binding.authenticated(head, context, kwp))
        return Generated(binding.assemble(head, tag, kwp), public)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Generated:
        self._require(spec)
        if self._objects.keys_named(label, id_):
            raise Untrusted(f"the token has a key named {label!r} already")
        name = templates.named(label, id_)
        handle, public = self._objects.generate(spec, name, token=True, extractable=False)
        self._objects.assert_ours(handle, spec, token=True)
        return Generated(None, public)

    def destroy_resident(self, label: str, id_: bytes) -> bool:
        found = self._objects.find([*templates.named(label, id_), (ck.CKA_TOKEN, True)])
        for handle in found:
            self._objects.destroy(handle)
            for slot in [slot for slot, key in self._hot.keys.items() if key[0] == handle]:
                self.unload(slot)
        return bool(found)

    def objects(self) -> Sequence[ObjectInfo]:
        return [self._describe(handle) for handle in self._objects.find([(ck.CKA_TOKEN, True)])]

    def _describe(self, handle: int) -> ObjectInfo:
        number = int.from_bytes(self._objects.read(handle, ck.CKA_CLASS) or b"", "little")
        key_type = self._objects.read(handle, ck.CKA_KEY_TYPE)
        return ObjectInfo(
            label=(self._objects.read(handle, ck.CKA_LABEL) or b"").decode("utf-8", "replace"),
            id=self._objects.read(handle, ck.CKA_ID) or b"",
            kind=_KINDS.get(number, "other"),
            algorithm="" if key_type is None else _key_type_name(int.from_bytes(key_type, "little")),
        )

    def attest(self, label: str, id_: bytes) -> Sequence[bytes]:  # noqa: ARG002 - the seam's
        raise Unsupported(f"the token {self._token.label!r} cannot attest: PKCS#11 has no attestation")

    def notices(self, after: int) -> Sequence[Notice]:  # noqa: ARG002 - the seam's
        return ()

    def health(self) -> Mapping[str, str]:
        return {
            "backend": "pkcs11",
            "token": self._token.label,
            "loaded": str(len(self._hot.keys)),
            "known-answer": "right" if self._hot.answers() else "wrong",
        }

    def close(self) -> None:
        """Close both sessions: session objects die with them, and the login with the last session."""
        for name in ("_worker", "_keeper"):
            session = getattr(self, name, None)
            if session is not None:
                self._module.close_session(session)
                delattr(self, name)

    def _require(self, spec: KeySpec) -> None:
        if spec not in MECHANISMS or templates.kind_of(spec.algorithm).generator not in self._mechanisms:
            raise Unsupported(f"the token {self._token.label!r} has no {spec.algorithm} for {spec.purpose}")

    def _wrapping(self, slot: int) -> int:
        key = self._hot.keys.get(slot)
        if key is None:
            raise HsmError(f"no key is loaded in slot {slot}", device="CKR_KEY_HANDLE_INVALID")
        if key[1].algorithm is not Algorithm.AES_256_KWP:
            raise InvalidInput("the key is not a wrapping key", device="CKR_KEY_FUNCTION_NOT_PERMITTED")
        return key[0]

    def _ask(self, slot: int, message: bytes) -> bytes:
        """The HMAC-SHA-256 of a public message, computed in the HSM, outside the region."""
        key = self._hot.keys.get(slot)
        if key is None or Mechanism.HMAC_SHA_256 not in MECHANISMS[key[1]]:
            raise InvalidInput("the key is not a mac key", device="CKR_KEY_FUNCTION_NOT_PERMITTED")
        return self._hot.mac_of(slot, message)


def _key_type_name(number: int) -> str:
    names = {ck.CKK_RSA: "rsa", ck.CKK_EC: "ec", ck.CKK_AES: "aes", ck.CKK_GENERIC_SECRET: "generic-secret",
             ck.CKK_EC_EDWARDS: "ec-edwards", ck.CKK_EC_MONTGOMERY: "ec-montgomery"}  # fmt: skip
    return names.get(number, f"{number:#x}")
