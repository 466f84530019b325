"""Objects on a token: finding, reading, asserting, making, wrapping, unwrapping. Cold, and nothing secret passes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

from openk_hsm.binding import Wrap
from openk_hsm.errors import HsmError, Untrusted
from openk_hsm.pkcs11 import codes, templates
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.module import Attribute, Mech, Module, Template, Ulong, Value, encode_value
from openk_hsm.pkcs11.public import curve_spki, rsa_spki
from openk_hsm.pkcs11.quirks import NONE, Quirks
from openk_hsm.pkcs11.wrapping import Wrapping
from openk_hsm.seam import KeySpec
from openk_hsm.specs import RSA_BITS

MAX_FOUND: Final = 4096
MAX_LABEL: Final = 256


class Objects:
    """Everything done with objects in one session. The session must outlive the session objects it makes."""

    def __init__(self, module: Module, session: int, quirks: Quirks = NONE) -> None:
        self._module = module
        self._session = session
        self.quirks = quirks
        self.wrapping = Wrapping(module, session)

    def find(self, rows: Sequence[tuple[int, Value]]) -> list[int]:
        """Handles of all objects that match, at most `MAX_FOUND`."""
        template = Template(rows)
        check(self._module.find_init(self._session, template.array, template.count), "C_FindObjectsInit")
        try:
            found: list[int] = []
            batch = (Ulong * 64)()
            count = Ulong()
            while len(found) < MAX_FOUND:
                check(self._module.find(self._session, batch, len(batch), ctypes.byref(count)), "C_FindObjects")
                if not count.value:
                    break
                found.extend(batch[: count.value])
            return found
        finally:
            self._module.find_final(self._session)

    def keys_named(self, label: str, id_: bytes) -> list[int]:
        """Secret and private token objects of that label and id."""
        name: templates.Rows = [*templates.named(label, id_), (ck.CKA_TOKEN, True)]
        secret = self.find([*name, (ck.CKA_CLASS, ck.CKO_SECRET_KEY)])
        return secret + self.find([*name, (ck.CKA_CLASS, ck.CKO_PRIVATE_KEY)])

    def read(self, handle: int, kind: int) -> bytes | None:
        """A public attribute's value, or None when the object has none or hides it. Raises HsmError."""
        cell = Attribute(kind, None, 0)
        code = self._module.get_attribute_value(self._session, handle, ctypes.byref(cell), 1)
        if code in (codes.CKR_ATTRIBUTE_SENSITIVE, codes.CKR_ATTRIBUTE_TYPE_INVALID):
            return None
        check(code, "C_GetAttributeValue")
        if cell.length == ck.UNAVAILABLE_INFORMATION:
            return None
        buffer = ctypes.create_string_buffer(max(1, cell.length))
        cell.value = ctypes.addressof(buffer)
        check(self._module.get_attribute_value(self._session, handle, ctypes.byref(cell), 1), "C_GetAttributeValue")
        return buffer.raw[: cell.length]

    def assert_ours(self, handle: int, spec: KeySpec, *, token: bool, name: str = "", sized: bool = True) -> None:
        """Raise Untrusted, with the object's name, unless every attribute is what openk sets for that spec.
        `sized` False: any RSA size."""
        called = f"the key {name!r} on the token" if token else "an unwrapped key"
        called += f" ({spec.algorithm}, {spec.purpose})"
        self._assert(handle, templates.expected(spec, token=token, quirks=self.quirks), called)
        if sized and spec.algorithm in RSA_BITS:
            modulus = (self.read(handle, ck.CKA_MODULUS) or b"").lstrip(b"\x00")
            if len(modulus) * 8 != RSA_BITS[spec.algorithm]:
                raise Untrusted(f"{called} has {len(modulus) * 8} bits, not {RSA_BITS[spec.algorithm]}")

    def assert_protected(self, handle: int, ours: str) -> None:
        """Raise Untrusted, with the object's name, unless the key cannot leave, change or be copied. Keys whose label
        does not begin with `ours` are another program's. One call where the answer is as it should be: a token may
        have thousands of keys, and a network HSM needs a millisecond for each call."""
        rows = [(kind, encode_value(value)) for kind, value in templates.LASTING]
        wanted = [row for row in rows if row[0] not in self.quirks.inexpressible]
        label, found = self._label_and_flags(handle, [kind for kind, _ in wanted])
        if label is None:
            label = (self.read(handle, ck.CKA_LABEL) or b"").decode("utf-8", "replace")
        if label.startswith(ours) and found != [value for _, value in wanted]:
            self._assert(
                handle, [(kind, frozenset({value})) for kind, value in wanted], f"the key {label!r} on the token"
            )

    def _label_and_flags(self, handle: int, kinds: Sequence[int]) -> tuple[str | None, list[bytes]]:
        """In one call; no label where the token does not answer so."""
        label = ctypes.create_string_buffer(MAX_LABEL)
        flags = ctypes.create_string_buffer(len(kinds))
        rows = (Attribute * (1 + len(kinds)))()
        rows[0] = Attribute(ck.CKA_LABEL, ctypes.addressof(label), MAX_LABEL)
        for index, kind in enumerate(kinds):
            rows[index + 1] = Attribute(kind, ctypes.addressof(flags) + index, 1)
        if self._module.get_attribute_value(self._session, handle, rows, len(rows)):
            return None, []
        text = label.raw[: rows[0].length].decode("utf-8", "replace")
        return text, [flags.raw[index : index + 1] for index in range(len(kinds))]

    def _assert(self, handle: int, rows: Sequence[tuple[int, frozenset[bytes]]], called: str) -> None:
        for kind, allowed in rows:
            found = self.read(handle, kind)
            if found not in allowed:
                shown = "nothing" if found is None else found.hex()
                wanted = " or ".join(sorted(value.hex() for value in allowed))
                raise Untrusted(
                    f"{called} has {ck.ATTRIBUTE_NAMES.get(kind, hex(kind))} = {shown} where openk sets {wanted}: "
                    "openk did not make it so, and does not use it"
                )

    def generate(
        self, spec: KeySpec, name: templates.Rows, *, token: bool, extractable: bool, rsa_bits: int = 0
    ) -> tuple[int, bytes | None]:
        """A fresh key's handle, and its public key (SubjectPublicKeyInfo). The public object stays only on a token."""
        kind = templates.kind_of(spec.algorithm)
        mechanism = Mech(kind.generator, None, 0)
        template = templates.generated(spec, name, token=token, extractable=extractable, quirks=self.quirks)
        handle = Ulong()
        if kind.object_class == ck.CKO_SECRET_KEY:
            arguments = (ctypes.byref(mechanism), template.array, template.count, ctypes.byref(handle))
            check(self._module.generate_key(self._session, *arguments), "C_GenerateKey")
            return handle.value, None
        public_template = templates.public_half(spec, name, token=token, rsa_bits=rsa_bits, quirks=self.quirks)
        public = Ulong()
        code = self._module.generate_key_pair(
            self._session,
            ctypes.byref(mechanism),
            public_template.array,
            public_template.count,
            template.array,
            template.count,
            ctypes.byref(public),
            ctypes.byref(handle),
        )
        check(code, "C_GenerateKeyPair")
        spki = self.public_key(public.value, spec)
        if not token:
            self.destroy(public.value)
        return handle.value, spki

    def public_key(self, handle: int, spec: KeySpec) -> bytes:
        """SubjectPublicKeyInfo of a public key object."""
        if spec.algorithm in RSA_BITS:
            modulus, exponent = self.read(handle, ck.CKA_MODULUS), self.read(handle, ck.CKA_PUBLIC_EXPONENT)
            if modulus is None or exponent is None:
                raise HsmError("the token does not show an RSA public key")
            return rsa_spki(modulus, exponent)
        point = self.read(handle, ck.CKA_EC_POINT)
        if point is None:
            raise HsmError("the token does not show a public point")
        return curve_spki(spec.algorithm, point)

    def wrap(self, way: Wrap, kw: int, handle: int, mechanism: int = 0) -> bytes:
        """The blob of an extractable key."""
        return self.wrapping.wrap(way, kw, handle, mechanism)

    def unwrap(self, way: Wrap, kw: int, spec: KeySpec, blob: bytes, mechanism: int = 0) -> int:
        """A session object from a blob whose binding was verified. Raises InvalidCiphertext, HsmError."""
        handle = self.wrapping.unwrap(way, kw, blob, templates.unwrapped(spec, self.quirks), mechanism)
        return self._tighten(handle, spec) if self.quirks.unwraps_loosely else handle

    def _tighten(self, loose: int, spec: KeySpec) -> int:
        template = templates.tightened(spec, self.quirks)
        handle = Ulong()
        try:
            code = self._module.copy_object(self._session, loose, template.array, template.count, ctypes.byref(handle))
            check(code, "C_CopyObject of a key that the token unwrapped loosely")
        finally:
            self.destroy(loose)
        return handle.value

    def begins_decrypt(self, handle: int, mechanism: int, length: int) -> bool:
        """Whether the token starts to decrypt with the CK_MECHANISM at `mechanism`; ends it on `length` zero bytes."""
        if self._module.decrypt_init(self._session, mechanism, handle):
            return False
        room = Ulong(length)
        opened = ctypes.create_string_buffer(length)
        self._module.decrypt(self._session, bytes(length), length, opened, ctypes.byref(room))
        return True

    def destroy(self, handle: int) -> None:
        check(self._module.destroy_object(self._session, handle), "C_DestroyObject")
