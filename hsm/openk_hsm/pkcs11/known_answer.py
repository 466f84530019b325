"""A decryption whose answer is known: asked before the device is blamed for an ambiguous code, or the caller.

The key is made for that alone, never one of the hierarchy; one message is encrypted under it, ever.
"""

from __future__ import annotations

import ctypes
from typing import Final

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.mechanisms import GcmParams
from openk_hsm.pkcs11.module import Mech, Module, Ulong
from openk_hsm.specs import GCM_NONCE, GCM_TAG

TEXT: Final = b"openk known answer"
_BLOCK: Final = 16


class KnownAnswer:
    """`key`: handle of a session AES key that encrypts. `gcm`: AES-GCM, else AES-CBC with PKCS #7 padding."""

    def __init__(self, module: Module, session: int, key: int, *, gcm: bool) -> None:
        self._module = module
        self._session = session
        self._key = key
        self._gcm = gcm
        self._iv = ctypes.create_string_buffer(_BLOCK)
        address = ctypes.addressof(self._iv)
        self._params = GcmParams(address, GCM_NONCE, 8 * GCM_NONCE, None, 0, 8 * GCM_TAG)
        if gcm:
            params = ctypes.addressof(self._params)
            self._mechanism = Mech(ck.CKM_AES_GCM, params, ctypes.sizeof(self._params))
        else:
            self._mechanism = Mech(ck.CKM_AES_CBC_PAD, address, _BLOCK)
        self._sealed = b""

    def learn(self) -> None:
        """Encrypt the text. Raises HsmError when the token cannot, draws a nonce of its own in place of ours, or opens
        what was changed."""
        room = Ulong(2 * len(TEXT) + GCM_TAG)
        answer = ctypes.create_string_buffer(room.value)
        mechanism = ctypes.byref(self._mechanism)
        check(self._module.encrypt_init(self._session, mechanism, self._key), "C_EncryptInit of the known answer")
        code = self._module.encrypt(self._session, TEXT, len(TEXT), answer, ctypes.byref(room))
        check(code, "C_Encrypt of the known answer")
        self._sealed = answer.raw[: room.value]
        expected = len(TEXT) + GCM_TAG if self._gcm else -(-len(TEXT) // _BLOCK) * _BLOCK
        if self._iv.raw != bytes(_BLOCK) or len(self._sealed) != expected:
            raise HsmError("the token draws its own nonce, and openk counts on the one it gives", device="nonce")
        if not self.holds():
            raise HsmError("the token does not open what it sealed", device="known-answer")
        if self._gcm and self._open(self._sealed[:-1] + bytes((self._sealed[-1] ^ 1,))) is not None:
            raise HsmError("the token opens a GCM ciphertext whose tag was changed", device="tag")

    def holds(self) -> bool:
        """Whether the device still decrypts it."""
        return self._open(self._sealed) == TEXT

    def _open(self, sealed: bytes) -> bytes | None:
        opened = ctypes.create_string_buffer(len(sealed) + _BLOCK)
        room = Ulong(len(opened))
        if self._module.decrypt_init(self._session, ctypes.byref(self._mechanism), self._key):
            return None
        if self._module.decrypt(self._session, sealed, len(sealed), opened, ctypes.byref(room)):
            return None
        return opened.raw[: room.value]
