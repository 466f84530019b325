"""The PKCS#11 back end: one token, one thread. Loading, login and sessions are in `library` and `sessions`, what the
token does and what of that is chosen in `probe`, what it does otherwise than others in `quirks`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from openk_hsm import binding
from openk_hsm.binding import Wrap
from openk_hsm.errors import HsmError, InvalidInput, Unavailable, Unsupported, Untrusted
from openk_hsm.pkcs11 import codes, known_roots, templates
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.chosen import describe
from openk_hsm.pkcs11.composite import CIPHER_HALF, MAC_HALF, MAC_ID_SUFFIX, PAIR
from openk_hsm.pkcs11.discovery import TokenFound, choose_token, list_mechanisms, list_tokens, load_module
from openk_hsm.pkcs11.hot import Hot
from openk_hsm.pkcs11.inventory import Inventory
from openk_hsm.pkcs11.module import Module
from openk_hsm.pkcs11.objects import Objects
from openk_hsm.pkcs11.probe import Capabilities, DataWay, choose_data_way, probe
from openk_hsm.pkcs11.quirks import quirks_of
from openk_hsm.pkcs11.sessions import Sessions
from openk_hsm.pkcs11.softhsm import care_for
from openk_hsm.roots import ROOT_MAC, name_of, roots
from openk_hsm.seam import Algorithm, Generated, KeyHandle, KeySpec, Mechanism, Notice, ObjectInfo, TokenInfo
from openk_hsm.specs import MECHANISMS
from openk_hsm.uri import HsmUri

IDENTITY_QUESTION: Final = b"openk.token-identity.1"
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
        self._care = care_for(uri.module)
        self._is_loaded = False
        self._roots = roots
        self._sessions: Sessions | None = None
        self._hot: Hot | None = None
        self._wrapping_ids: dict[int, bytes] = {}
        self._resident: set[int] = set()

    def load(self) -> None:
        """Load and initialise the module; it stays for the life of the process. Raises HsmError."""
        with self._care.load():
            self._module: Module = load_module(self._uri.module, self._uri.initialise)
        self._is_loaded = True

    def log_in(self, pin: Callable[[], memoryview]) -> TokenFound:
        """Load the module, find the token, log in, find out what it does. Raises WrongPin after exactly one try.
        `open` does it when nobody did."""
        if not self._is_loaded:
            self.load()
        module = self._module
        token = choose_token(list_tokens(self._uri.module), self._uri)
        quirks = quirks_of(token.manufacturer, token.model, token.library_manufacturer, token.library_version)
        mechanisms = frozenset(list_mechanisms(self._uri.module, token.slot))
        sessions = Sessions(module, token, quirks)
        try:
            with self._care.log_in(token.serial):
                sessions.log_in(pin)
            self._objects = Objects(module, sessions.keeper, quirks)
            self._data: DataWay = choose_data_way(module, sessions.worker, self._objects, mechanisms)
            self._able: Capabilities = probe(self._objects, mechanisms, self._data)
            self._inventory = Inventory(self._objects, token.label, self._data)
        except HsmError:
            sessions.close()
            raise
        self._token, self._sessions = token, sessions
        return token

    def open(self, region: memoryview, address: int, pin: Callable[[], memoryview]) -> TokenInfo:  # noqa: ARG002 - the module needs only the address
        if self._sessions is None:
            self.log_in(pin)
        if self._sessions is None:
            raise TypeError("logged in without sessions")
        if self._hot is not None:
            self._forget(self._hot)
        hot = Hot(self._module, self._sessions.worker, address, self._data.known)
        self._hot = hot
        self.random = hot.random
        self.mac = hot.mac
        self.sign = hot.sign
        self.encrypt = hot.encrypt
        self.decrypt = hot.decrypt
        self.agree = hot.agree
        self._inventory.assert_all()
        self._sealing = self._inventory.data_algorithm()
        self._audit = self._inventory.audit_algorithm(self._able.resident)
        if not self._roots:
            return self._info(b"", b"")
        if not self._able.way_of:
            raise Unsupported(
                f"the token {self._token.label!r} wraps no keys so that they come back as they must be (sensitive, not "
                "extractable, for their use only): openk's vaults cannot live on it"
            )
        for root in roots(self._sealing, self._audit):
            self._inventory.check_root(root)
            self.load_resident(root.slot, root.spec, *name_of(root))
        answer = self._ask(ROOT_MAC.slot, IDENTITY_QUESTION)
        return self._info(answer, b"" if self._audit is None else self._inventory.audit_public(self._audit))

    def _forget(self, hot: Hot) -> None:
        """Another daemon (or the same again) opens: nothing that the last one loaded stays."""
        for slot in list(hot.keys):
            self.unload(slot)

    @property
    def _loaded(self) -> Hot:
        if self._hot is None:
            raise HsmError("the token is not open")
        return self._hot

    def _info(self, answer: bytes, audit_public: bytes) -> TokenInfo:
        token, able = self._token, self._able
        named = f"{token.serial}\x00{token.model}\x00".encode()
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
            chosen=describe(able, self._sealing, self._data.why, self._audit),
            data=self._sealing,
            audit=self._audit,
        )

    def load_resident(self, slot: int, spec: KeySpec, label: str, id_: bytes) -> None:
        if spec == PAIR:
            first = self._inventory.only_key(CIPHER_HALF, label, id_)
            self._loaded.add_pair(slot, first, self._inventory.only_key(MAC_HALF, label, id_ + MAC_ID_SUFFIX))
        else:
            self._loaded.add(slot, self._inventory.only_key(spec, label, id_), spec)
        self._resident.add(slot)
        self._wrapping_ids[slot] = binding.resident_id(label, id_)

    def load_wrapped(self, slot: int, spec: KeySpec, kw: int, mac: int, context: bytes, blob: bytes) -> None:
        wrapping = self._wrapping(kw)
        head, tag, wrapped = binding.split(blob, spec, self._wrapping_ids[kw], frozenset(self._able.ways))
        if not hmac.compare_digest(tag, self._ask(mac, binding.authenticated(head, context, wrapped))):
            raise binding.unbound()
        way = Wrap(head[1])
        if spec == PAIR:
            first, second = binding.split_pair(wrapped)
            handle = self._unwrap(way, wrapping, CIPHER_HALF, first)
            try:
                partner = self._unwrap(way, wrapping, MAC_HALF, second)
            except HsmError:
                self._objects.destroy(handle)
                raise
            self.unload(slot)
            self._loaded.add_pair(slot, handle, partner)
        else:
            handle = self._unwrap(way, wrapping, spec, wrapped)
            self.unload(slot)
            self._loaded.add(slot, handle, spec)
        self._wrapping_ids[slot] = binding.wrapped_id(spec, context)

    def _unwrap(self, way: Wrap, wrapping: int, spec: KeySpec, blob: bytes) -> int:
        handle = self._objects.unwrap(way, wrapping, spec, blob)
        try:
            self._objects.assert_ours(handle, spec, token=False)
        except HsmError:
            self._objects.destroy(handle)
            raise
        return handle

    def unload(self, slot: int) -> None:
        second = self._loaded.second_of(slot)
        handle = self._loaded.remove(slot)
        self._wrapping_ids.pop(slot, None)
        if slot in self._resident:
            self._resident.discard(slot)
            return
        for gone in (handle, second):
            if gone is not None:
                self._objects.destroy(gone)

    def generate(self, spec: KeySpec, kw: int, mac: int, context: bytes) -> Generated:
        wrapping = self._wrapping(kw)
        self._require(spec)
        way = self._able.way_of.get(CIPHER_HALF.algorithm if spec == PAIR else spec.algorithm, min(self._able.ways))
        public = None
        if spec == PAIR:
            first, _ = self._make_wrapped(way, wrapping, CIPHER_HALF)
            second, _ = self._make_wrapped(way, wrapping, MAC_HALF)
            wrapped = binding.join_pair(first, second)
        else:
            wrapped, public = self._make_wrapped(way, wrapping, spec)
        head = binding.header(spec, self._wrapping_ids[kw], way)
        tag = self._ask(mac, binding.authenticated(head, context, wrapped))
        return Generated(binding.assemble(head, tag, wrapped), public)

    def _make_wrapped(self, way: Wrap, wrapping: int, spec: KeySpec) -> tuple[bytes, bytes | None]:
        handle, public = self._objects.generate(spec, [], token=False, extractable=True)
        try:
            return self._objects.wrap(way, wrapping, handle), public
        finally:
            self._objects.destroy(handle)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Generated:
        self._require(spec)
        with self._care.change():
            return self._generate_resident(spec, label, id_)

    def _generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Generated:
        if self._objects.keys_named(label, id_):
            raise Untrusted(f"the token has a key named {label!r} already")
        if spec == PAIR:  # the second first: a pair whose first key is there is whole
            if not self._objects.keys_named(label, id_ + MAC_ID_SUFFIX):
                self._make_resident(MAC_HALF, label, id_ + MAC_ID_SUFFIX)
            self._inventory.only_key(MAC_HALF, label, id_ + MAC_ID_SUFFIX)
            self._make_resident(CIPHER_HALF, label, id_)
            return Generated(None, None)
        return Generated(None, self._make_resident(spec, label, id_))

    def _make_resident(self, spec: KeySpec, label: str, id_: bytes) -> bytes | None:
        name = templates.named(label, id_)
        handle, public = self._objects.generate(spec, name, token=True, extractable=False)
        self._objects.assert_ours(handle, spec, token=True, name=label)
        return public

    def import_root(self, root: KeyHandle, value: bytes) -> None:
        """Put a root key of known value on the token, for development: `known_roots`."""
        if self._sessions is None:
            raise HsmError("the token is not open")
        with self._care.change():
            known_roots.create(self._module, self._sessions.keeper, root, value)

    def destroy_resident(self, label: str, id_: bytes) -> bool:
        with self._care.change():
            found = self._objects.find([*templates.named(label, id_), (ck.CKA_TOKEN, True)])
            second = self._objects.find([*templates.named(label, id_ + MAC_ID_SUFFIX), (ck.CKA_TOKEN, True)])
            for handle in found + second:
                self._objects.destroy(handle)
                for slot in [slot for slot, key in self._loaded.keys.items() if key[0] == handle]:
                    self.unload(slot)
        return bool(found)

    def objects(self) -> Sequence[ObjectInfo]:
        """The second key of a pair is not told: it comes and goes with the first."""
        found = [self._describe(handle) for handle in self._objects.find([(ck.CKA_TOKEN, True)])]
        names = {(each.label, each.id) for each in found}
        return [each for each in found if (each.label, each.id.removesuffix(MAC_ID_SUFFIX)) not in names
                or not each.id.endswith(MAC_ID_SUFFIX)]  # fmt: skip

    def _label(self, handle: int) -> str:
        return (self._objects.read(handle, ck.CKA_LABEL) or b"").decode("utf-8", "replace")

    def _describe(self, handle: int) -> ObjectInfo:
        number = int.from_bytes(self._objects.read(handle, ck.CKA_CLASS) or b"", "little")
        key_type = self._objects.read(handle, ck.CKA_KEY_TYPE)
        return ObjectInfo(
            label=self._label(handle),
            id=self._objects.read(handle, ck.CKA_ID) or b"",
            kind=_KINDS.get(number, "other"),
            algorithm="" if key_type is None else _key_type_name(int.from_bytes(key_type, "little")),
        )

    def attest(self, label: str, id_: bytes) -> Sequence[bytes]:  # noqa: ARG002 - the seam's
        raise Unsupported(f"the token {self._token.label!r} cannot attest: PKCS#11 has no attestation")

    def notices(self, after: int) -> Sequence[Notice]:  # noqa: ARG002 - the seam's
        return ()

    def judge(self, error: HsmError) -> HsmError:
        if type(error) is not HsmError or not codes.is_doubtful(error.device) or self._loaded.answers():
            return error
        return Unavailable(f"the token fails a known-answer decryption after {error}", device=error.device)

    def health(self) -> Mapping[str, str]:
        """Uses both sessions, so that none of them ends for want of use. Raises Unavailable when the device does not
        decrypt what it should, SessionLost when a session has ended."""
        sessions = self._sessions
        if sessions is not None:
            sessions.check()
        if not self._loaded.answers():
            raise Unavailable("the token fails a known-answer decryption")
        return {
            "backend": "pkcs11",
            "token": self._token.label,
            "loaded": str(len(self._loaded.keys)),
            "known-answer": "right",
        }

    def close(self) -> None:
        """Close the sessions: session objects die with them, and the login with the last session."""
        if self._sessions is not None:
            self._sessions.close()
            self._sessions = self._hot = None

    def _require(self, spec: KeySpec) -> None:
        able = self._sealing is PAIR.algorithm if spec == PAIR else spec in self._able.resident
        if not able:
            raise Unsupported(f"the token {self._token.label!r} has no {spec.algorithm} for {spec.purpose}")

    def _wrapping(self, slot: int) -> int:
        key = self._loaded.keys.get(slot)
        if key is None:
            raise HsmError(f"no key is loaded in slot {slot}", device="CKR_KEY_HANDLE_INVALID")
        if key[1].algorithm is not Algorithm.AES_256_KWP:
            raise InvalidInput("the key is not a wrapping key", device="CKR_KEY_FUNCTION_NOT_PERMITTED")
        return key[0]

    def _ask(self, slot: int, message: bytes) -> bytes:
        """The HMAC-SHA-256 of a public message, computed in the HSM, outside the region."""
        key = self._loaded.keys.get(slot)
        if key is None or Mechanism.HMAC_SHA_256 not in MECHANISMS.get(key[1], ()):
            raise InvalidInput("the key is not a mac key", device="CKR_KEY_FUNCTION_NOT_PERMITTED")
        return self._loaded.mac_of(slot, message)


def _key_type_name(number: int) -> str:
    names = {ck.CKK_RSA: "rsa", ck.CKK_EC: "ec", ck.CKK_AES: "aes", ck.CKK_GENERIC_SECRET: "generic-secret",
             ck.CKK_EC_EDWARDS: "ec-edwards", ck.CKK_EC_MONTGOMERY: "ec-montgomery"}  # fmt: skip
    return names.get(number, f"{number:#x}")
