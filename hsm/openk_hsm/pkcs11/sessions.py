"""Sessions and login on one token. The login belongs to the application, not to a session (PKCS#11 v3.1, 5.6.6).

Two sessions: session objects die with the one that made them, so the keeper makes objects and the worker runs the hot
operations.  Where the token allows one session only, or has no second left, one does both.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Final

from openk_hsm.errors import HsmError, SessionLost, TokenMissing, Unavailable, WrongPin
from openk_hsm.pkcs11 import codes
from openk_hsm.pkcs11 import constants as ck
from openk_hsm.pkcs11.codes import check
from openk_hsm.pkcs11.discovery import TokenFound
from openk_hsm.pkcs11.module import Module, Ulong
from openk_hsm.pkcs11.quirks import Quirks

_LOGIN_TRIES: Final = 5
_USER_STATES: Final = frozenset({ck.CKS_RO_USER_FUNCTIONS, ck.CKS_RW_USER_FUNCTIONS})
_PIN_ADVICE: Final = {
    "CKR_PIN_INCORRECT": "the token did not accept the PIN; it is not tried again. Correct the credential, then "
    "`openk-hsm unlatch`",
    "CKR_PIN_LOCKED": "the token's PIN is locked: its security officer must set a new one (C_InitPIN, with the "
    "vendor's tool), then put it into the credential and `openk-hsm unlatch`",
    "CKR_PIN_EXPIRED": "the token wants a new PIN before it does anything: set one with the vendor's tool, put it into "
    "the credential, then `openk-hsm unlatch`",
    "CKR_PIN_LEN_RANGE": "the PIN is shorter or longer than this token's PINs: check the credential for a stray "
    "newline or a cut line, then `openk-hsm unlatch`",
    "CKR_PIN_INVALID": "the PIN has characters that this token's PINs cannot have: check the credential, then "
    "`openk-hsm unlatch`",
}


class _SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = (("slot", Ulong), ("state", Ulong), ("flags", Ulong), ("device_error", Ulong))


class Sessions:
    """`keeper` and `worker` are the same session where the token has one only. `close` ends them, and the login with
    the application's last."""

    def __init__(self, module: Module, token: TokenFound, quirks: Quirks) -> None:
        """Opens the keeper; `log_in` opens the worker. Raises HsmError."""
        self._module = module
        self._token = token
        self._quirks = quirks
        self.keeper = self._open(ck.CKF_RW_SESSION)
        self.worker = self.keeper

    def log_in(self, pin: Callable[[], memoryview]) -> None:
        """Raises WrongPin after exactly one try."""
        self._login(pin)
        limits = (self._token.max_sessions, self._token.max_rw_sessions)
        if limits[0] != 1:
            try:
                self.worker = self._open(0 if limits[1] == 1 else ck.CKF_RW_SESSION)
            except Unavailable as error:
                if error.device != "CKR_SESSION_COUNT":
                    raise
        info = _SessionInfo()
        check(self._module.get_session_info(self.worker, ctypes.addressof(info)), "C_GetSessionInfo")
        if info.state not in _USER_STATES:
            raise Unavailable(
                f"the login does not hold in a second session (its state is {info.state}): another user is logged in "
                "to the token in this process, or the module keeps a login for each session",
                device="CKR_USER_NOT_LOGGED_IN",
            )

    def _open(self, more: int) -> int:
        session = Ulong()
        flags = ck.CKF_SERIAL_SESSION | more
        code = self._module.open_session(self._token.slot, flags, None, None, ctypes.byref(session))
        if code == codes.CKR_SESSION_COUNT:
            most = self._token.max_sessions or self._token.max_rw_sessions
            allowed = f"it allows {most}" if most else "it does not say how many it allows"
            raise Unavailable(
                f"the token {self._token.label!r} has no session left ({allowed}): other programs or other workers "
                "hold them. End those, or run fewer workers; each takes two, or one where there is no second",
                device="CKR_SESSION_COUNT",
            )
        if code in (codes.CKR_TOKEN_NOT_PRESENT, codes.CKR_TOKEN_NOT_RECOGNIZED, codes.CKR_SLOT_ID_INVALID):
            raise TokenMissing(
                f"the token {self._token.label!r} was there a moment ago and has been removed: plug it in again",
                device=codes.name_of(code),
            )
        check(code, "C_OpenSession")
        return session.value

    def _login(self, pin: Callable[[], memoryview]) -> None:
        if self._token.pin_trouble == "locked":
            raise WrongPin(_PIN_ADVICE["CKR_PIN_LOCKED"], device="CKR_PIN_LOCKED")
        secret = pin()
        if not len(secret):
            raise WrongPin("the PIN is empty: nothing was tried. Check the credential", device="")
        address = ctypes.addressof(ctypes.c_char.from_buffer(secret))
        code = self._module.login(self.keeper, ck.CKU_USER, address, len(secret))
        for attempt in range(_LOGIN_TRIES if self._quirks.login_races else 0):
            if code != codes.CKR_GENERAL_ERROR:
                break
            time.sleep(0.01 * (attempt + 1))
            code = self._module.login(self.keeper, ck.CKU_USER, address, len(secret))
        if code in (0, codes.CKR_USER_ALREADY_LOGGED_IN):
            return
        name = codes.name_of(code)
        if code == codes.CKR_USER_ANOTHER_ALREADY_LOGGED_IN:
            raise HsmError(
                "the security officer is logged in to the token in this process: only one user can be at a time",
                device=name,
            )
        if name in _PIN_ADVICE:
            raise WrongPin(_PIN_ADVICE[name], device=name)
        check(code, "C_Login")

    def check(self) -> None:
        """Raises SessionLost, Unavailable when a session has ended or the login in it."""
        info = _SessionInfo()
        for session in dict.fromkeys((self.worker, self.keeper)):
            check(self._module.get_session_info(session, ctypes.addressof(info)), "C_GetSessionInfo")
            if info.state not in _USER_STATES:
                raise SessionLost("the login has ended", device="CKR_USER_NOT_LOGGED_IN")

    def close(self) -> None:
        for session in dict.fromkeys((self.worker, self.keeper)):
            self._module.close_session(session)
