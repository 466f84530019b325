"""From a URI to one token: loading the module, listing slots, choosing (RFC 7512, section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pkcs11
import pkcs11.exceptions
from pkcs11 import TokenFlag

from openk_hsm.errors import HsmError, TokenMissing, TokenUninitialised
from openk_hsm.pkcs11.module import Module
from openk_hsm.uri import HsmUri

_INITIALISED: Final = TokenFlag.TOKEN_INITIALIZED
_USER_PIN: Final = TokenFlag.USER_PIN_INITIALIZED


@dataclass(frozen=True, slots=True)
class TokenFound:
    """One slot with a token in it. Text fields are stripped of their padding."""

    slot: int
    label: str
    serial: str
    model: str
    manufacturer: str
    firmware: str
    initialised: bool
    user_pin: bool
    pin_trouble: str  # "", "count-low", "final-try" or "locked"


def load_module(path: str) -> Module:
    """Load and initialise the module. Raises HsmError that says what to check."""
    module = Module(path)  # first: it explains what is wrong with a path better than a loader does
    try:
        library = pkcs11.lib(path)
        if not library.initialized:
            library.initialize()
    except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
        raise HsmError(
            f"the module {path} does not initialise: {type(error).__name__}. For SoftHSM2: does SOFTHSM2_CONF name a "
            "readable file, and does its directories.tokendir exist?",
            device=type(error).__name__,
        ) from None
    return module


def list_tokens(path: str) -> Sequence[TokenFound]:
    """All tokens of a module that `load_module` loaded, uninitialised ones included."""
    try:
        slots = pkcs11.lib(path).get_slots(token_present=True)
        found: list[TokenFound] = []
        for slot in slots:
            token = slot.get_token()
            found.append(
                TokenFound(
                    slot=slot.slot_id,
                    label=token.label.strip("\x00 "),
                    serial=token.serial.decode("ascii", "replace").strip("\x00 "),
                    model=(token.model or "").strip("\x00 "),
                    manufacturer=(token.manufacturer_id or "").strip("\x00 "),
                    firmware=".".join(str(part) for part in token.firmware_version),
                    initialised=bool(token.flags & _INITIALISED),
                    user_pin=bool(token.flags & _USER_PIN),
                    pin_trouble=_pin_trouble(token.flags),
                )
            )
    except pkcs11.exceptions.PKCS11Error as error:
        raise HsmError(
            f"the module cannot list its tokens: {type(error).__name__}", device=type(error).__name__
        ) from None
    return found


def _pin_trouble(flags: TokenFlag) -> str:
    if flags & TokenFlag.USER_PIN_LOCKED:
        return "locked"
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        return "final-try"
    return "count-low" if flags & TokenFlag.USER_PIN_COUNT_LOW else ""


def list_mechanisms(path: str, slot: int) -> tuple[int, ...]:
    """CKM numbers of a slot, sorted."""
    for candidate in pkcs11.lib(path).get_slots(token_present=True):
        if candidate.slot_id == slot:
            return tuple(sorted(int(mechanism) for mechanism in candidate.get_mechanisms()))
    raise TokenMissing(f"slot {slot} has gone")


def choose_token(tokens: Sequence[TokenFound], uri: HsmUri) -> TokenFound:
    """The one token that the URI matches. Raises TokenMissing, TokenUninitialised, HsmError when several match."""
    matching = [token for token in tokens if _matches(token, uri)]
    ready = [token for token in matching if token.initialised and token.user_pin]
    wanted = ";".join(f"{name}={value}" for name, value in uri.path.items()) or "any token"
    if len(ready) > 1:
        serials = ", ".join(token.serial for token in ready)
        raise TokenMissing(f"{len(ready)} tokens match {wanted}: add serial= to the URI, one of {serials}")
    if ready:
        return ready[0]
    if matching:
        raise TokenUninitialised(
            f"the token that matches {wanted} is not initialised or has no user PIN: initialise it with its vendor's "
            "tool (SoftHSM2: softhsm2-util --init-token), then run `openk-hsm init`"
        )
    labels = ", ".join(repr(token.label) for token in tokens if token.initialised) or "none"
    raise TokenMissing(f"no token matches {wanted}; the module shows: {labels}. `openk-hsm tokens` lists them")


def _matches(token: TokenFound, uri: HsmUri) -> bool:
    have = {
        "token": token.label,
        "serial": token.serial,
        "manufacturer": token.manufacturer,
        "model": token.model,
        "slot-id": str(token.slot),
    }
    return all(have[name] == value for name, value in uri.path.items())
