"""The device's error codes: their names, and whose fault each is (YubiHSM 2 command reference, "Errors").

INVALID SESSION and AUTHENTICATION FAILED answer a message whose session has gone (30 s without a command, a reboot):
nothing was done, so `Device` opens another session and says it again.  At login they mean something else: there the
first says that the device has just forgotten the session, the second that the password is wrong.
"""

from __future__ import annotations

from typing import Final

from openk_hsm.errors import HsmError, InvalidInput, TokenFull, Unavailable, Unsupported, Untrusted

INVALID_COMMAND: Final = 0x01
INVALID_DATA: Final = 0x02
INVALID_SESSION: Final = 0x03
AUTHENTICATION_FAILED: Final = 0x04
SESSIONS_FULL: Final = 0x05
LOG_FULL: Final = 0x0A
OBJECT_NOT_FOUND: Final = 0x0B

SESSION_LOST: Final = frozenset({INVALID_SESSION, AUTHENTICATION_FAILED})
"""Outside a session: the message was not understood, so nothing was done."""

_TABLE: Final[dict[int, tuple[str, type[HsmError], str]]] = {
    0x01: ("INVALID_COMMAND", Unsupported, "the firmware does not know this command"),
    0x02: ("INVALID_DATA", InvalidInput, "the input does not fit the key or the algorithm"),
    0x03: ("INVALID_SESSION", Unavailable, "the session has ended"),
    0x04: ("AUTHENTICATION_FAILED", Unavailable, "the session's keys no longer fit"),
    0x05: (
        "SESSIONS_FULL",
        Unavailable,
        "all 16 sessions are taken; those that nobody uses end after 30 seconds",
    ),
    0x06: ("SESSION_FAILED", Unavailable, "the session could not be made"),
    0x07: ("STORAGE_FAILED", TokenFull, "the device has no room for another object: destroy resident keys first"),
    0x08: ("WRONG_LENGTH", InvalidInput, "the input has the wrong length"),
    0x09: (
        "INSUFFICIENT_PERMISSIONS",
        HsmError,
        "the authentication key or the object lacks a capability: docs/hsm.md lists what openk needs",
    ),
    0x0A: ("LOG_FULL", Unavailable, "the log is full and audit is forced: openk drains it, if it may get log entries"),
    0x0B: ("OBJECT_NOT_FOUND", HsmError, "there is no such object, or it is in another domain"),
    0x0C: ("INVALID_ID", HsmError, "the object's id is not allowed here"),
    0x0E: ("SSH_CA_CONSTRAINT_VIOLATION", HsmError, "a constraint of an SSH template is violated"),
    0x0F: ("INVALID_OTP", HsmError, "a one-time password is wrong"),
    0x10: ("DEMO_MODE", HsmError, "the device is in demo mode: power it off and on again"),
    0x11: ("OBJECT_EXISTS", Untrusted, "an object with this id exists already"),
    0x12: ("ALGORITHM_DISABLED", Unsupported, "the algorithm is switched off on this device"),
    0xFF: ("COMMAND_UNEXECUTED", Unavailable, "the device did not get to the command"),
}


def name_of(code: int) -> str:
    row = _TABLE.get(code)
    return f"YUBIHSM_{row[0]}" if row is not None else f"YUBIHSM_{code:#04x}"


def error_of(code: int, doing: str) -> HsmError:
    """The error for a code other than OK; `doing` names the command."""
    row = _TABLE.get(code)
    kind, says = (row[1], row[2]) if row is not None else (HsmError, "an error code that openk does not know")
    return kind(f"{doing}: {says}", device=name_of(code))
