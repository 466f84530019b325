"""How a token wraps key objects: the ways of `openk_hsm.binding.Wrap` as PKCS#11 mechanisms, and which it really has.

CKM_AES_KEY_WRAP_PAD (0x210A) means RFC 5649 on some tokens (SoftHSM2) and RFC 3394 after PKCS #7 padding on others
(NSS softokn); the standard deprecated it for that.  The blob's length tells them apart: 40 or 48 bytes for 32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Final

from openk_hsm.binding import Wrap
from openk_hsm.errors import HsmError, InvalidCiphertext, Unsupported
from openk_hsm.pkcs11 import codes
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.module import Mech, Module, Template, Ulong

MAX_WRAPPED: Final = 8192
IV_BYTES: Final = 16
CANDIDATES: Final[tuple[tuple[Wrap, int], ...]] = (
    (Wrap.KWP, ck.CKM_AES_KEY_WRAP_KWP),
    (Wrap.KWP, ck.CKM_AES_KEY_WRAP_PAD),
    (Wrap.PADDED, ck.CKM_AES_KEY_WRAP_PKCS7),
    (Wrap.PADDED, ck.CKM_AES_KEY_WRAP_PAD),
    (Wrap.CBC, ck.CKM_AES_CBC_PAD),
    (Wrap.PLAIN, ck.CKM_AES_KEY_WRAP),
)
"""Best first. RFC 3394 without padding is last: it wraps what is a multiple of eight bytes only."""
BLOB_OF_32: Final[dict[Wrap, int]] = {Wrap.KWP: 40, Wrap.PADDED: 48, Wrap.CBC: IV_BYTES + 48, Wrap.PLAIN: 40}
"""The length of a wrapped 256-bit key, by which a mechanism shows which way it is."""


class Wrapping:
    """Wraps and unwraps in one session. `ways`: mechanism numbers of the ways that the token was seen to do."""

    def __init__(self, module: Module, session: int) -> None:
        self._module = module
        self._session = session
        self.ways: Mapping[Wrap, int] = {}

    def wrap(self, way: Wrap, kw: int, handle: int, mechanism: int = 0) -> bytes:
        """The blob of an extractable key. `mechanism`: while the ways are found out. Raises HsmError."""
        iv = self._random(IV_BYTES) if way is Wrap.CBC else b""
        cell, kept = self._mechanism(way, iv, mechanism)
        room = Ulong(MAX_WRAPPED)
        buffer = ctypes.create_string_buffer(MAX_WRAPPED)
        arguments = (ctypes.byref(cell), kw, handle, buffer, ctypes.byref(room))
        check(self._module.wrap_key(self._session, *arguments), "C_WrapKey")
        if kept.raw[: len(iv)] != iv:
            raise HsmError("the token does not keep the IV that it is given")
        return iv + buffer.raw[: room.value]

    def unwrap(self, way: Wrap, kw: int, blob: bytes, template: Template, mechanism: int = 0) -> int:
        """A session object from a blob whose binding was verified. Raises InvalidCiphertext, HsmError."""
        iv, wrapped = (blob[:IV_BYTES], blob[IV_BYTES:]) if way is Wrap.CBC else (b"", blob)
        cell, _ = self._mechanism(way, iv, mechanism)
        handle = Ulong()
        code = self._module.unwrap_key(
            self._session,
            ctypes.byref(cell),
            kw,
            wrapped,
            len(wrapped),
            template.array,
            template.count,
            ctypes.byref(handle),
        )
        if code in codes.AMBIGUOUS:
            raise InvalidCiphertext("a wrapped key does not unwrap", device=codes.name_of(code))
        check(code, "C_UnwrapKey")
        return handle.value

    def _mechanism(self, way: Wrap, iv: bytes, mechanism: int) -> tuple[Mech, ctypes.Array[ctypes.c_char]]:
        number = mechanism or self.ways.get(way)
        if number is None:
            raise Unsupported(f"the token does not wrap keys this way ({way.name})", device="CKR_MECHANISM_INVALID")
        buffer = ctypes.create_string_buffer(iv, max(1, len(iv)))
        return Mech(number, ctypes.addressof(buffer) if iv else None, len(iv)), buffer

    def _random(self, length: int) -> bytes:
        buffer = ctypes.create_string_buffer(length)
        check(self._module.generate_random(self._session, buffer, length), "C_GenerateRandom")
        return buffer.raw
