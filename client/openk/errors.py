"""Every error of the SDK, grouped as the table of codes is: by who is at fault.

Error
├── CallerFault: RequestFault, AuthFault, PolicyFault, KeyFault, VaultFault, SecretFault
├── HsmFault
├── StoreFault, AuditFault, BackupFault
└── DaemonFault: InternalFault, Unreachable, TimedOut, Interrupted, Unintelligible
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk.answers import Answer, Value
from openk.wire.codes import BY_NUMBER, CODES


class Error(Exception):
    """`code`: its stable name (`openk.wire.codes.CODES` has advice, HTTP status, exit code); `message`: one
    sentence; `request`: the id under which the daemon's log and audit log know the request; `retry_after`:
    seconds, where waiting helps; `details`: by code, see docs/errors.md."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        request: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Value] | None = None,
    ) -> None:
        row = CODES.get(code)
        self.code = code
        self.message = message or (row.meaning if row else code)
        self.request = request
        self.retry_after = retry_after
        self.details: Mapping[str, Value] = details or {}
        super().__init__(f"{code}: {self.message}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.code, self.message, self.request, self.retry_after, dict(self.details))


class CallerFault(Error):
    """Something about the request; the same request will fail again."""


class RequestFault(CallerFault):
    """request.*: not well formed, too large, too many."""


class AuthFault(CallerFault):
    """auth.*: it is not known who calls."""


class PolicyFault(CallerFault):
    """policy.*: not allowed, or a policy set with mistakes."""


class KeyFault(CallerFault):
    """key.*: unknown, unsuitable, exhausted; a ciphertext, signature or MAC that is not valid."""


class VaultFault(CallerFault):
    """vault.*"""


class SecretFault(CallerFault):
    """secret.*"""


class HsmFault(Error):
    """hsm.*: the device."""


class StoreFault(Error):
    """store.*: what the daemon keeps its records in."""


class AuditFault(Error):
    """audit.*: the log, without which nothing is admitted."""


class BackupFault(Error):
    """backup.*: copies of the daemon's state."""


class DaemonFault(Error):
    """daemon.*: the daemon's state, or the connection to it."""


class InternalFault(DaemonFault):
    """internal: a mistake in openk."""


class Unreachable(DaemonFault):
    """daemon.unreachable: no daemon answers at the socket."""


class TimedOut(DaemonFault):
    """daemon.timeout: no answer within the call's time; it may or may not have been done."""


class Interrupted(DaemonFault):
    """daemon.interrupted: the connection broke before the answer; it may or may not have been done."""


class Unintelligible(DaemonFault):
    """daemon.unintelligible: an answer that is not this protocol's."""


GROUPS: Final[Mapping[str, type[Error]]] = {
    "request": RequestFault,
    "auth": AuthFault,
    "policy": PolicyFault,
    "key": KeyFault,
    "vault": VaultFault,
    "secret": SecretFault,
    "hsm": HsmFault,
    "store": StoreFault,
    "audit": AuditFault,
    "backup": BackupFault,
    "internal": InternalFault,
    "daemon": DaemonFault,
}
"""The first part of a code to its class; a group that this version does not know is plain Error."""
_ONES: Final[Mapping[str, type[Error]]] = {
    "daemon.unreachable": Unreachable,
    "daemon.timeout": TimedOut,
    "daemon.interrupted": Interrupted,
    "daemon.unintelligible": Unintelligible,
}


def make_error(
    code: str,
    message: str = "",
    *,
    request: str | None = None,
    retry_after: float | None = None,
    details: Mapping[str, Value] | None = None,
) -> Error:
    """The error of the class that `code` belongs to."""
    kind = _ONES.get(code) or GROUPS.get(code.partition(".")[0], Error)
    return kind(code, message, request=request, retry_after=retry_after, details=details)


def read_error(told: Value) -> Error:
    """An error as the wire tells it: a map, or a pair of number and "code: message"."""
    if isinstance(told, dict):
        return _from_map(told)
    if isinstance(told, list) and len(told) == 2 and isinstance(told[0], int) and isinstance(told[1], str):
        code, colon, message = told[1].partition(": ")
        row = BY_NUMBER.get(told[0])
        if row is not None and (not colon or code != row.name):
            return make_error(row.name, told[1])
        return make_error(code, message)
    return make_error("daemon.unintelligible", "An error of unknown form.")


def _from_map(told: Answer) -> Error:
    code, message = told.get("code"), told.get("message")
    request, retry_after, details = told.get("request"), told.get("retry_after"), told.get("details")
    if not isinstance(code, str):
        return make_error("daemon.unintelligible", "An error without a code.")
    return make_error(
        code,
        message if isinstance(message, str) else "",
        request=request if isinstance(request, str) else None,
        retry_after=float(retry_after) if isinstance(retry_after, int | float) else None,
        details=details if isinstance(details, dict) else None,
    )


def _rebuild(
    code: str, message: str, request: str | None, retry_after: float | None, details: dict[str, Value]
) -> Error:
    return make_error(code, message, request=request, retry_after=retry_after, details=details)
