"""From a URI to one token: what a module says of itself, its slots and tokens, and choosing (RFC 7512, section 2.4)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openk_hsm.errors import TokenMissing, TokenUninitialised
from openk_hsm.pkcs11 import codes
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.library import load_module, loaded
from openk_hsm.pkcs11.module import Module, Ulong
from openk_hsm.uri import HsmUri

__all__ = ["TokenFound", "choose_token", "list_mechanisms", "list_tokens", "load_module"]

Bytes = ctypes.c_ubyte
_UNLIMITED: Final = frozenset({0, ck.UNAVAILABLE_INFORMATION})
"""CK_EFFECTIVELY_INFINITE and CK_UNAVAILABLE_INFORMATION (PKCS#11 v3.1, section 3.2)."""


class _Version(ctypes.Structure):
    _fields_ = (("major", Bytes), ("minor", Bytes))


class _Info(ctypes.Structure):
    """CK_INFO."""

    _fields_ = (
        ("cryptoki", _Version),
        ("manufacturer", Bytes * 32),
        ("flags", Ulong),
        ("description", Bytes * 32),
        ("library", _Version),
    )


class _SlotInfo(ctypes.Structure):
    """CK_SLOT_INFO."""

    _fields_ = (
        ("description", Bytes * 64),
        ("manufacturer", Bytes * 32),
        ("flags", Ulong),
        ("hardware", _Version),
        ("firmware", _Version),
    )


class _TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("label", Bytes * 32),
        ("manufacturer", Bytes * 32),
        ("model", Bytes * 16),
        ("serial", Bytes * 16),
        ("flags", Ulong),
        ("max_sessions", Ulong),
        ("sessions", Ulong),
        ("max_rw_sessions", Ulong),
        ("rw_sessions", Ulong),
        ("max_pin", Ulong),
        ("min_pin", Ulong),
        ("public_memory", Ulong),
        ("free_public_memory", Ulong),
        ("private_memory", Ulong),
        ("free_private_memory", Ulong),
        ("hardware", _Version),
        ("firmware", _Version),
        ("time", Bytes * 16),
    )


@dataclass(frozen=True, slots=True)
class TokenFound:
    """One slot with a token in it. Text fields are stripped of their padding. Sessions: 0 for "no limit known"."""

    slot: int
    label: str
    serial: str
    model: str
    manufacturer: str
    firmware: str
    initialised: bool
    user_pin: bool
    pin_trouble: str  # "", "count-low", "final-try" or "locked"
    library_manufacturer: str = ""
    library_description: str = ""
    library_version: str = ""
    slot_description: str = ""
    slot_manufacturer: str = ""
    max_sessions: int = 0
    max_rw_sessions: int = 0


def list_tokens(path: str) -> Sequence[TokenFound]:
    """All tokens of a module that `load_module` loaded, uninitialised ones included. Raises HsmError."""
    module = loaded(path)
    info = _Info()
    check(module.get_info(ctypes.addressof(info)), "C_GetInfo")
    return [found for slot in _slots(module) if (found := _describe(module, info, slot)) is not None]


def _slots(module: Module) -> list[int]:
    """Slots with a token. Asked again when one is plugged in between the two calls."""
    while True:
        count = Ulong()
        check(module.get_slot_list(1, None, ctypes.byref(count)), "C_GetSlotList")
        slots = (Ulong * max(1, count.value))()
        code = module.get_slot_list(1, slots, ctypes.byref(count))
        if code != codes.CKR_BUFFER_TOO_SMALL:
            check(code, "C_GetSlotList")
            return list(slots[: count.value])


def _describe(module: Module, library: _Info, slot: int) -> TokenFound | None:
    """None when the token was pulled out meanwhile, or the reader does not know it."""
    place, token = _SlotInfo(), _TokenInfo()
    check(module.get_slot_info(slot, ctypes.addressof(place)), "C_GetSlotInfo")
    code = module.get_token_info(slot, ctypes.addressof(token))
    if code in (codes.CKR_TOKEN_NOT_PRESENT, codes.CKR_TOKEN_NOT_RECOGNIZED):
        return None
    check(code, "C_GetTokenInfo")
    return TokenFound(
        slot=slot,
        label=_text(token.label),
        serial=_text(token.serial),
        model=_text(token.model),
        manufacturer=_text(token.manufacturer),
        firmware=f"{token.firmware.major}.{token.firmware.minor}",
        initialised=bool(token.flags & ck.CKF_TOKEN_INITIALIZED),
        user_pin=bool(token.flags & ck.CKF_USER_PIN_INITIALIZED),
        pin_trouble=_pin_trouble(token.flags),
        library_manufacturer=_text(library.manufacturer),
        library_description=_text(library.description),
        library_version=f"{library.library.major}.{library.library.minor}",
        slot_description=_text(place.description),
        slot_manufacturer=_text(place.manufacturer),
        max_sessions=_limit(token.max_sessions),
        max_rw_sessions=_limit(token.max_rw_sessions),
    )


def _text(field: ctypes.Array[ctypes.c_ubyte]) -> str:
    """Blank-padded UTF-8; some tokens pad with NUL, or end with one and leave rubbish behind it."""
    return bytes(field).split(b"\x00", 1)[0].decode("utf-8", "replace").rstrip(" ")


def _limit(value: int) -> int:
    return 0 if value in _UNLIMITED or value >> 32 else value  # opencryptoki says 2^64 - 2


def _pin_trouble(flags: int) -> str:
    if flags & ck.CKF_USER_PIN_LOCKED:
        return "locked"
    if flags & ck.CKF_USER_PIN_FINAL_TRY:
        return "final-try"
    return "count-low" if flags & ck.CKF_USER_PIN_COUNT_LOW else ""


def list_mechanisms(path: str, slot: int) -> tuple[int, ...]:
    """CKM numbers of a slot, sorted. What a token lists is not yet what it does: see `probe`."""
    module = loaded(path)
    count = Ulong()
    check(module.get_mechanism_list(slot, None, ctypes.byref(count)), "C_GetMechanismList")
    listed = (Ulong * max(1, count.value))()
    check(module.get_mechanism_list(slot, listed, ctypes.byref(count)), "C_GetMechanismList")
    return tuple(sorted(listed[: count.value]))


def choose_token(tokens: Sequence[TokenFound], uri: HsmUri) -> TokenFound:
    """The one token that the URI matches. Raises TokenMissing, TokenUninitialised; the text lists what is there."""
    matching = [token for token in tokens if _matches(token, uri)]
    ready = [token for token in matching if token.initialised and token.user_pin]
    wanted = ";".join(f"{name}={value}" for name, value in uri.path.items()) or "any token"
    if len(ready) > 1:
        raise TokenMissing(
            f"{len(ready)} tokens match {wanted}, and openk does not guess: add serial= (or slot-id=) to the URI. They "
            f"are: {_listed(ready)}"
        )
    if ready:
        return ready[0]
    if matching:
        raise TokenUninitialised(
            f"the token that matches {wanted} is not initialised or has no user PIN: initialise it with its vendor's "
            "tool (SoftHSM2: softhsm2-util --init-token), then run `openk-hsm init`"
        )
    labels = _listed([token for token in tokens if token.initialised]) or "none"
    raise TokenMissing(f"no token matches {wanted}; the module shows: {labels}. `openk-hsm tokens` lists them")


def _listed(tokens: Sequence[TokenFound]) -> str:
    return "; ".join(f"{token.label!r} serial={token.serial} slot-id={token.slot}" for token in tokens)


def _matches(token: TokenFound, uri: HsmUri) -> bool:
    have = {
        "token": token.label,
        "serial": token.serial,
        "manufacturer": token.manufacturer,
        "model": token.model,
        "slot-id": str(token.slot),
        "slot-description": token.slot_description,
        "slot-manufacturer": token.slot_manufacturer,
        "library-manufacturer": token.library_manufacturer,
        "library-description": token.library_description,
        "library-version": token.library_version,
    }
    return all(have[name] == value for name, value in uri.path.items())
