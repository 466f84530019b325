"""A loaded PKCS#11 module: its function list by ctypes (PKCS#11 v3.1, section 5.2 and 3.6).

Inputs and answers stay in the caller's buffers, and a PIN is never a `str`.
Calls keep the GIL (PYFUNCTYPE): one thread per process uses the module, and giving up the GIL costs time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Final

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11 import codes

_ORDER: Final[tuple[str, ...]] = (
    *("Initialize", "Finalize", "GetInfo", "GetFunctionList", "GetSlotList", "GetSlotInfo", "GetTokenInfo"),
    *("GetMechanismList", "GetMechanismInfo", "InitToken", "InitPIN", "SetPIN", "OpenSession", "CloseSession"),
    *("CloseAllSessions", "GetSessionInfo", "GetOperationState", "SetOperationState", "Login", "Logout"),
    *("CreateObject", "CopyObject", "DestroyObject", "GetObjectSize", "GetAttributeValue", "SetAttributeValue"),
    *("FindObjectsInit", "FindObjects", "FindObjectsFinal", "EncryptInit", "Encrypt", "EncryptUpdate"),
    *("EncryptFinal", "DecryptInit", "Decrypt", "DecryptUpdate", "DecryptFinal", "DigestInit", "Digest"),
    *("DigestUpdate", "DigestKey", "DigestFinal", "SignInit", "Sign", "SignUpdate", "SignFinal"),
    *("SignRecoverInit", "SignRecover", "VerifyInit", "Verify", "VerifyUpdate", "VerifyFinal"),
    *("VerifyRecoverInit", "VerifyRecover", "DigestEncryptUpdate", "DecryptDigestUpdate", "SignEncryptUpdate"),
    *("DecryptVerifyUpdate", "GenerateKey", "GenerateKeyPair", "WrapKey", "UnwrapKey", "DeriveKey"),
    *("SeedRandom", "GenerateRandom", "GetFunctionStatus", "CancelFunction", "WaitForSlotEvent"),
)
"""CK_FUNCTION_LIST in its order."""

Ulong = ctypes.c_ulong
Pointer = ctypes.c_void_p
Function = Callable[..., int]

ONE_BYTE_BOOL: Final = (b"\x00", b"\x01")


class Mech(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", Ulong), ("parameter", Pointer), ("length", Ulong))


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", Ulong), ("value", Pointer), ("length", Ulong))


Value = bytes | bool | int


class Template:
    """An array of CK_ATTRIBUTE that owns its values. Holds nothing secret."""

    __slots__ = ("_values", "array", "count")

    def __init__(self, rows: Iterable[tuple[int, Value]]) -> None:
        encoded = [(kind, encode_value(value)) for kind, value in rows]
        self.count = len(encoded)
        self.array = (Attribute * self.count)()
        self._values = [ctypes.create_string_buffer(value, max(1, len(value))) for _, value in encoded]
        for index, (kind, value) in enumerate(encoded):
            self.array[index].type = kind
            self.array[index].value = ctypes.addressof(self._values[index])
            self.array[index].length = len(value)


def encode_value(value: Value) -> bytes:
    """An attribute as PKCS#11 holds it: CK_BBOOL, CK_ULONG or bytes."""
    if isinstance(value, bool):
        return ONE_BYTE_BOOL[value]
    if isinstance(value, int):
        return bytes(Ulong(value))
    return value


def _function_list(path: str) -> ctypes.Array[ctypes.c_void_p]:
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise HsmError(f"cannot load the module {path}: {error}. Check module-path in the URI.") from None
    try:
        get_list = library.C_GetFunctionList
    except AttributeError:
        raise HsmError(f"{path} is not a PKCS#11 module: it has no C_GetFunctionList. Check module-path.") from None
    pointer = Pointer()
    codes.check(get_list(ctypes.byref(pointer)), "C_GetFunctionList")
    # CK_VERSION takes two bytes, padded to the alignment of the pointers that follow.
    first = (pointer.value or 0) + ctypes.sizeof(Pointer)
    return (Pointer * len(_ORDER)).from_address(first)


class Module:
    """Functions of a module, which `library.initialise` initialises. Each returns CKR; callers `codes.check` it."""

    def __init__(self, path: str) -> None:
        """Raises HsmError when `path` is no PKCS#11 module."""
        self.path = path
        self._list = _function_list(path)
        session, pointer, length, cell = Ulong, Pointer, Ulong, Pointer
        bind = self._bind
        self.initialize = bind("Initialize", pointer)
        self.get_info = bind("GetInfo", pointer)
        self.get_slot_list = bind("GetSlotList", ctypes.c_ubyte, pointer, cell)
        self.get_slot_info = bind("GetSlotInfo", Ulong, pointer)
        self.get_mechanism_list = bind("GetMechanismList", Ulong, pointer, cell)
        self.init_token = bind("InitToken", Ulong, pointer, length, pointer)
        self.init_pin = bind("InitPIN", session, pointer, length)
        self.open_session = bind("OpenSession", Ulong, Ulong, pointer, pointer, cell)
        self.close_session = bind("CloseSession", session)
        self.get_session_info = bind("GetSessionInfo", session, pointer)
        self.login = bind("Login", session, Ulong, pointer, length)
        self.logout = bind("Logout", session)
        self.get_token_info = bind("GetTokenInfo", Ulong, pointer)
        self.create_object = bind("CreateObject", session, pointer, Ulong, cell)
        self.copy_object = bind("CopyObject", session, Ulong, pointer, Ulong, cell)
        self.destroy_object = bind("DestroyObject", session, Ulong)
        self.get_attribute_value = bind("GetAttributeValue", session, Ulong, pointer, Ulong)
        self.find_init = bind("FindObjectsInit", session, pointer, Ulong)
        self.find = bind("FindObjects", session, pointer, Ulong, cell)
        self.find_final = bind("FindObjectsFinal", session)
        self.encrypt_init = bind("EncryptInit", session, pointer, Ulong)
        self.encrypt = bind("Encrypt", session, pointer, length, pointer, cell)
        self.decrypt_init = bind("DecryptInit", session, pointer, Ulong)
        self.decrypt = bind("Decrypt", session, pointer, length, pointer, cell)
        self.sign_init = bind("SignInit", session, pointer, Ulong)
        self.sign = bind("Sign", session, pointer, length, pointer, cell)
        self.generate_key = bind("GenerateKey", session, pointer, pointer, Ulong, cell)
        self.generate_key_pair = bind("GenerateKeyPair", session, pointer, pointer, Ulong, pointer, Ulong, cell, cell)
        self.wrap_key = bind("WrapKey", session, pointer, Ulong, Ulong, pointer, cell)
        self.unwrap_key = bind("UnwrapKey", session, pointer, Ulong, pointer, length, pointer, Ulong, cell)
        self.derive_key = bind("DeriveKey", session, pointer, Ulong, pointer, Ulong, cell)
        self.generate_random = bind("GenerateRandom", session, pointer, length)

    def _bind(self, name: str, *arguments: type[ctypes.c_ulong | ctypes.c_void_p | ctypes.c_ubyte]) -> Function:
        address = self._list[_ORDER.index(name)]
        if not address:
            raise HsmError(f"the module has no C_{name}: it cannot serve openk", device="CKR_FUNCTION_NOT_SUPPORTED")
        return ctypes.PYFUNCTYPE(Ulong, *arguments)(int(address))
