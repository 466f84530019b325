"""Objects on a token: finding, reading, asserting, making, wrapping, unwrapping. Cold, and nothing secret passes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final

from openk_hsm.errors import HsmError, InvalidCiphertext, Untrusted
from openk_hsm.pkcs11 import codes, templates
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.module import Attribute, Mech, Module, Template, Ulong, Value
from openk_hsm.pkcs11.public import curve_spki, rsa_spki
from openk_hsm.seam import KeySpec
from openk_hsm.specs import RSA_BITS

MAX_FOUND: Final = 4096
MAX_WRAPPED: Final = 8192


class Objects:
    """Everything done with objects in one session. The session must outlive the session objects it makes."""

    def __init__(self, module: Module, session: int, kwp: int) -> None:
        """`kwp`: the token's mechanism number for RFC 5649."""
        self._module = module
        self._session = session
        self._kwp = Mech(kwp, None, 0)

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

    def assert_ours(self, handle: int, spec: KeySpec, *, token: bool, sized: bool = True) -> None:
        """Raise Untrusted unless every attribute is what openk sets for that spec. `sized` False: any RSA size."""
        for kind, allowed in templates.expected(spec, token=token):
            found = self.read(handle, kind)
            if found not in allowed:
                shown = "nothing" if found is None else found.hex()
                raise Untrusted(f"a key for {spec.algorithm}/{spec.purpose} has attribute {kind:#06x} = {shown}")
        if sized and spec.algorithm in RSA_BITS:
            modulus = (self.read(handle, ck.CKA_MODULUS) or b"").lstrip(b"\x00")
            if len(modulus) * 8 != RSA_BITS[spec.algorithm]:
                raise Untrusted(f"an RSA key has {len(modulus) * 8} bits, not {RSA_BITS[spec.algorithm]}")

    def generate(
        self, spec: KeySpec, name: templates.Rows, *, token: bool, extractable: bool, rsa_bits: int = 0
    ) -> tuple[int, bytes | None]:
        """A fresh key's handle, and its public key (SubjectPublicKeyInfo). The public object stays only on a token."""
        kind = templates.kind_of(spec.algorithm)
        mechanism = Mech(kind.generator, None, 0)
        template = templates.generated(spec, name, token=token, extractable=extractable)
        handle = Ulong()
        if kind.object_class == ck.CKO_SECRET_KEY:
            arguments = (ctypes.byref(mechanism), template.array, template.count, ctypes.byref(handle))
            check(self._module.generate_key(self._session, *arguments), "C_GenerateKey")
            return handle.value, None
        public_template = templates.public_half(spec, name, token=token, rsa_bits=rsa_bits)
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

    def wrap(self, kw: int, handle: int) -> bytes:
        """The KWP blob of an extractable key."""
        room = Ulong(MAX_WRAPPED)
        buffer = ctypes.create_string_buffer(MAX_WRAPPED)
        arguments = (ctypes.byref(self._kwp), kw, handle, buffer, ctypes.byref(room))
        check(self._module.wrap_key(self._session, *arguments), "C_WrapKey")
        return buffer.raw[: room.value]

    def unwrap(self, kw: int, spec: KeySpec, kwp: bytes) -> int:
        """A session object from a KWP blob whose binding was verified. Raises InvalidCiphertext, HsmError."""
        template = templates.unwrapped(spec)
        handle = Ulong()
        code = self._module.unwrap_key(
            self._session,
            ctypes.byref(self._kwp),
            kw,
            kwp,
            len(kwp),
            template.array,
            template.count,
            ctypes.byref(handle),
        )
        if code in codes.AMBIGUOUS:
            raise InvalidCiphertext("a wrapped key does not unwrap", device=codes.name_of(code))
        check(code, "C_UnwrapKey")
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
