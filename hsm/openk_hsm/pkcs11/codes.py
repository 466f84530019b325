"""PKCS#11 return values: their names, and whose fault each is (PKCS#11 v3.1, section 5.1).

CKR_GENERAL_ERROR is not in the sick list: SoftHSM2 answers it for a bad GCM tag, so `Hot` asks a known
answer of the device before anyone is blamed.
"""

from __future__ import annotations

from typing import Final

from openk_hsm.errors import (
    HsmError,
    InvalidCiphertext,
    InvalidInput,
    SessionLost,
    TokenFull,
    TokenMissing,
    TokenUninitialised,
    Unavailable,
    Unsupported,
    WrongPin,
)

CKR_GENERAL_ERROR: Final = 0x005
CKR_USER_ALREADY_LOGGED_IN: Final = 0x100
CKR_BUFFER_TOO_SMALL: Final = 0x150
CKR_SLOT_ID_INVALID: Final = 0x003
CKR_TOKEN_NOT_PRESENT: Final = 0x0E0
CKR_TOKEN_NOT_RECOGNIZED: Final = 0x0E1
CKR_OPERATION_ACTIVE: Final = 0x090
CKR_CANT_LOCK: Final = 0x00A
CKR_CRYPTOKI_ALREADY_INITIALIZED: Final = 0x191
CKR_SESSION_COUNT: Final = 0x0B1
CKR_USER_ANOTHER_ALREADY_LOGGED_IN: Final = 0x104
CKR_ARGUMENTS_BAD: Final = 0x007
CKR_PIN_INCORRECT: Final = 0x0A0
CKR_ATTRIBUTE_SENSITIVE: Final = 0x011
CKR_ATTRIBUTE_TYPE_INVALID: Final = 0x012

_TABLE: Final[dict[int, tuple[str, type[HsmError]]]] = {
    0x001: ("CKR_CANCEL", HsmError),
    0x002: ("CKR_HOST_MEMORY", Unavailable),
    0x003: ("CKR_SLOT_ID_INVALID", TokenMissing),
    0x005: ("CKR_GENERAL_ERROR", HsmError),
    0x006: ("CKR_FUNCTION_FAILED", HsmError),
    0x007: ("CKR_ARGUMENTS_BAD", InvalidInput),
    0x00A: ("CKR_CANT_LOCK", HsmError),
    0x010: ("CKR_ATTRIBUTE_READ_ONLY", HsmError),
    0x011: ("CKR_ATTRIBUTE_SENSITIVE", HsmError),
    0x012: ("CKR_ATTRIBUTE_TYPE_INVALID", HsmError),
    0x013: ("CKR_ATTRIBUTE_VALUE_INVALID", HsmError),
    0x01B: ("CKR_ACTION_PROHIBITED", HsmError),
    0x020: ("CKR_DATA_INVALID", InvalidInput),
    0x021: ("CKR_DATA_LEN_RANGE", InvalidInput),
    0x030: ("CKR_DEVICE_ERROR", Unavailable),
    0x031: ("CKR_DEVICE_MEMORY", TokenFull),
    0x032: ("CKR_DEVICE_REMOVED", Unavailable),
    0x040: ("CKR_ENCRYPTED_DATA_INVALID", InvalidCiphertext),
    0x041: ("CKR_ENCRYPTED_DATA_LEN_RANGE", InvalidCiphertext),
    0x050: ("CKR_FUNCTION_CANCELED", HsmError),
    0x054: ("CKR_FUNCTION_NOT_SUPPORTED", Unsupported),
    0x060: ("CKR_KEY_HANDLE_INVALID", SessionLost),
    0x062: ("CKR_KEY_SIZE_RANGE", Unsupported),
    0x063: ("CKR_KEY_TYPE_INCONSISTENT", InvalidInput),
    0x068: ("CKR_KEY_FUNCTION_NOT_PERMITTED", InvalidInput),
    0x069: ("CKR_KEY_NOT_WRAPPABLE", Unsupported),
    0x06A: ("CKR_KEY_UNEXTRACTABLE", HsmError),
    0x070: ("CKR_MECHANISM_INVALID", Unsupported),
    0x071: ("CKR_MECHANISM_PARAM_INVALID", Unsupported),
    0x082: ("CKR_OBJECT_HANDLE_INVALID", SessionLost),
    0x090: ("CKR_OPERATION_ACTIVE", SessionLost),
    0x091: ("CKR_OPERATION_NOT_INITIALIZED", SessionLost),
    0x0A0: ("CKR_PIN_INCORRECT", WrongPin),
    0x0A1: ("CKR_PIN_INVALID", WrongPin),
    0x0A2: ("CKR_PIN_LEN_RANGE", WrongPin),
    0x0A3: ("CKR_PIN_EXPIRED", WrongPin),
    0x0A4: ("CKR_PIN_LOCKED", WrongPin),
    0x0B0: ("CKR_SESSION_CLOSED", SessionLost),
    0x0B1: ("CKR_SESSION_COUNT", Unavailable),
    0x0B3: ("CKR_SESSION_HANDLE_INVALID", SessionLost),
    0x0B5: ("CKR_SESSION_READ_ONLY", HsmError),
    0x0C0: ("CKR_SIGNATURE_INVALID", HsmError),
    0x0C1: ("CKR_SIGNATURE_LEN_RANGE", HsmError),
    0x0D0: ("CKR_TEMPLATE_INCOMPLETE", HsmError),
    0x0D1: ("CKR_TEMPLATE_INCONSISTENT", HsmError),
    0x0E0: ("CKR_TOKEN_NOT_PRESENT", TokenMissing),
    0x0E1: ("CKR_TOKEN_NOT_RECOGNIZED", TokenMissing),
    0x0E2: ("CKR_TOKEN_WRITE_PROTECTED", HsmError),
    0x100: ("CKR_USER_ALREADY_LOGGED_IN", HsmError),
    0x101: ("CKR_USER_NOT_LOGGED_IN", SessionLost),
    0x102: ("CKR_USER_PIN_NOT_INITIALIZED", TokenUninitialised),
    0x103: ("CKR_USER_TYPE_INVALID", HsmError),
    0x104: ("CKR_USER_ANOTHER_ALREADY_LOGGED_IN", HsmError),
    0x105: ("CKR_USER_TOO_MANY_TYPES", HsmError),
    0x110: ("CKR_WRAPPED_KEY_INVALID", InvalidCiphertext),
    0x112: ("CKR_WRAPPED_KEY_LEN_RANGE", InvalidCiphertext),
    0x130: ("CKR_DOMAIN_PARAMS_INVALID", Unsupported),
    0x140: ("CKR_CURVE_NOT_SUPPORTED", Unsupported),
    0x150: ("CKR_BUFFER_TOO_SMALL", HsmError),
    0x190: ("CKR_CRYPTOKI_NOT_INITIALIZED", Unavailable),
    0x191: ("CKR_CRYPTOKI_ALREADY_INITIALIZED", HsmError),
    0x1A0: ("CKR_MUTEX_BAD", Unavailable),
    0x200: ("CKR_FUNCTION_REJECTED", HsmError),
}

DOUBTFUL: Final = frozenset({CKR_GENERAL_ERROR, 0x006})
"""What a token answers to anything, for a reason of the request's or of its own: it is asked a known answer."""
VENDOR: Final = 0x8000_0000
"""Codes from here are the vendor's own (section 5.1): as doubtful."""
AMBIGUOUS: Final = frozenset({CKR_GENERAL_ERROR, 0x006, 0x007, 0x020, 0x021})
"""What tokens answer both for a ciphertext that does not open and for their own trouble, or (0x007, NSS softokn on
an RSA ciphertext above the modulus) for a wrong call."""

BAD_POINT: Final = frozenset({CKR_GENERAL_ERROR, 0x006, 0x013, 0x020, 0x062, 0x070, 0x071, 0x130})
"""What tokens answer to C_DeriveKey for a point that is not on the curve (0x062: NSS softokn), or for trouble."""


def name_of(code: int) -> str:
    row = _TABLE.get(code)
    return row[0] if row is not None else f"CKR_{code:#010x}"


def error_of(code: int, doing: str) -> HsmError:
    """The error for a return value other than CKR_OK; `doing` names the function or the step."""
    row = _TABLE.get(code)
    kind = row[1] if row is not None else HsmError
    name = name_of(code)
    return kind(f"{doing}: {name}", device=name)


def is_doubtful(device: str) -> bool:
    """Whether what `name_of` says may mean a request's fault or the device's own trouble. The vendor's own codes may
    (section 5.1: from 0x80000000)."""
    if device in _DOUBTFUL_NAMES:
        return True
    return device.startswith("CKR_0x") and int(device[4:], 16) >= VENDOR


def check(code: int, doing: str) -> None:
    """Raise HsmError unless `code` is CKR_OK."""
    if code:
        raise error_of(code, doing)


_DOUBTFUL_NAMES: Final = frozenset(map(name_of, DOUBTFUL))
