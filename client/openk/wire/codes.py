"""Every error code of openk, in one table: the wire, the CLI, the docs and other doors all read it.

A code is `group.name`; the group says who is at fault.  Numbers and names never change their meaning
once released; new codes are appended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """Who has to do something about it."""

    CALLER = "caller"  # the request, or what the caller may do
    DEVICE = "device"  # the HSM
    STORE = "store"  # the disk under the store or the audit log
    OPERATOR = "operator"  # the configuration, the PIN, the token: nothing comes back by itself
    DAEMON = "daemon"  # openk itself, its capacity or its end


@dataclass(frozen=True, slots=True)
class Code:
    """One row.  `number` is the wire number; `http` an HTTP status; `grpc` the name of a canonical gRPC code; `exit` the
    exit status of `openk`; `retry` says whether the same request may succeed later."""

    number: int
    name: str
    meaning: str
    advice: str
    http: int
    grpc: str
    exit: int
    retry: bool = False

    @property
    def group(self) -> str:
        """What comes before the dot."""
        return self.name.partition(".")[0]

    @property
    def fault(self) -> Fault:
        return Fault.OPERATOR if self.name in _OPERATORS else _FAULTS[self.group]


_FAULTS: Final = {
    "request": Fault.CALLER, "auth": Fault.CALLER, "policy": Fault.CALLER, "key": Fault.CALLER, "vault": Fault.CALLER,
    "secret": Fault.CALLER, "hsm": Fault.DEVICE, "store": Fault.STORE, "audit": Fault.STORE, "backup": Fault.STORE, "internal": Fault.DAEMON,
    "daemon": Fault.DAEMON,
}  # fmt: skip
_OPERATORS: Final = frozenset({
    "policy.invalid", "policy.lockout", "hsm.pin", "hsm.token_missing", "hsm.token_uninitialised", "hsm.full",
    "hsm.untrusted", "store.full", "store.damaged", "store.foreign", "audit.damaged", "backup.failed", "backup.unconfigured",
    "daemon.sealed", "daemon.misconfigured",
})  # fmt: skip
"""Not cured by waiting or by asking differently."""

_ROWS: Final = (
    # caller: the request itself
    Code(100, "request.invalid", "The request is not well formed.", "Correct the request; `system.methods` describes each method.", 400, "INVALID_ARGUMENT", 2),
    Code(101, "request.too_large", "The message is larger than the daemon accepts.", "Send less in one message, or raise limits.message_bytes.", 413, "RESOURCE_EXHAUSTED", 2),
    Code(102, "request.unknown_method", "No such method.", "See `openk methods`.", 404, "UNIMPLEMENTED", 2),
    Code(103, "request.timeout", "The message did not arrive completely in time.", "Send whole messages.", 408, "DEADLINE_EXCEEDED", 2, True),
    Code(104, "request.rate_limited", "Too many requests from this caller.", "Wait for retry_after seconds.", 429, "RESOURCE_EXHAUSTED", 75, True),
    Code(110, "auth.unidentified", "The kernel does not say who is calling.", "Connect from a process in the same user namespace.", 401, "UNAUTHENTICATED", 77),
    Code(120, "policy.denied", "No policy allows this.", "Ask `openk policy explain` what is missing.", 403, "PERMISSION_DENIED", 77),
    Code(121, "policy.invalid", "The policy set has mistakes; the running set stays in force.", "Mend the files named in the details, then reload.", 422, "FAILED_PRECONDITION", 65),
    Code(122, "policy.lockout", "The policy set would lock out every administrator.", "Permit someone policy.reload, then reload.", 422, "FAILED_PRECONDITION", 65),
    # caller: keys
    Code(200, "key.unknown", "No such key.", "See `openk key list VAULT`.", 404, "NOT_FOUND", 66),
    Code(201, "key.exists", "A key of that name exists.", "Choose another name, or rotate the key.", 409, "ALREADY_EXISTS", 73),
    Code(202, "key.version_unknown", "The key has no such version.", "See `openk key describe KEY`.", 404, "NOT_FOUND", 66),
    Code(203, "key.unsuitable", "The key is not for this use.", "One key has one purpose: create a key for this one.", 409, "FAILED_PRECONDITION", 65),
    Code(204, "key.unsupported", "This algorithm is not available with this protection on this HSM.", "See the matrix in docs/algorithms.md.", 422, "UNIMPLEMENTED", 65),
    Code(205, "key.ciphertext_invalid", "The ciphertext does not open with this key and this AAD.", "Check key, version, AAD and that the bytes are unchanged.", 422, "INVALID_ARGUMENT", 65),
    Code(206, "key.signature_invalid", "The signature is not valid for this input and key.", "Do not trust the input.", 422, "INVALID_ARGUMENT", 1),
    Code(207, "key.mac_invalid", "The MAC is not valid for this input and key.", "Do not trust the input.", 422, "INVALID_ARGUMENT", 1),
    Code(208, "key.exhausted", "This key version has reached the limit of its safe uses.", "Rotate the key.", 409, "FAILED_PRECONDITION", 65),
    Code(209, "key.input_invalid", "The input does not fit the algorithm.", "See docs/algorithms.md for sizes and formats.", 422, "INVALID_ARGUMENT", 65),
    Code(220, "vault.unknown", "No such vault.", "See `openk vault list`.", 404, "NOT_FOUND", 66),
    Code(221, "vault.exists", "A vault of that name exists.", "Choose another name.", 409, "ALREADY_EXISTS", 73),
    Code(230, "secret.unknown", "No such secret.", "See `openk secret list VAULT`.", 404, "NOT_FOUND", 66),
    Code(231, "secret.version_unknown", "The secret has no such version.", "See `openk secret list VAULT`.", 404, "NOT_FOUND", 66),
    Code(232, "secret.conflict", "The secret has changed since the version you named.", "Read it again, then put.", 409, "ABORTED", 75, True),
    # device
    Code(300, "hsm.unavailable", "The HSM cannot be reached.", "Wait for retry_after seconds; see `openk health`.", 503, "UNAVAILABLE", 75, True),
    Code(301, "hsm.timeout", "The HSM did not answer in time.", "Try again; see `openk health`.", 504, "DEADLINE_EXCEEDED", 75, True),
    Code(302, "hsm.interrupted", "The HSM failed while it did this; it may or may not have been done.", "Look before you try again.", 502, "ABORTED", 75),
    Code(303, "hsm.pin", "The HSM did not accept the PIN; it is not tried again.", "Correct the PIN credential, then clear the latch with `openk-hsm unlatch`.", 503, "FAILED_PRECONDITION", 78),
    Code(304, "hsm.token_missing", "No token matches the HSM URI.", "Check the URI and the device; `openk-hsm tokens` lists what is there.", 503, "FAILED_PRECONDITION", 78),
    Code(305, "hsm.token_uninitialised", "The token has no root keys.", "Run `openk-hsm init`.", 503, "FAILED_PRECONDITION", 78),
    Code(306, "hsm.full", "The HSM has no room for another object.", "Destroy resident keys, or use protection `wrapped`.", 507, "RESOURCE_EXHAUSTED", 75),
    Code(307, "hsm.refused", "The HSM refused the operation.", "See the log for the device's own code.", 502, "INTERNAL", 70),
    Code(308, "hsm.busy", "Too many operations wait for the HSM.", "Wait for retry_after seconds.", 503, "RESOURCE_EXHAUSTED", 75, True),
    Code(309, "hsm.untrusted", "An object on the HSM is not what openk made.", "Do not use this token; see docs/operations.md.", 503, "DATA_LOSS", 78),
    # store and audit
    Code(400, "store.conflict", "Somebody else changed this at the same time.", "Read again, then try again.", 409, "ABORTED", 75, True),
    Code(401, "store.unavailable", "The store cannot be read or written.", "See `openk health` and the log.", 503, "UNAVAILABLE", 75, True),
    Code(402, "store.full", "The disk is full.", "Free space; nothing was lost.", 507, "RESOURCE_EXHAUSTED", 75, True),
    Code(403, "store.damaged", "A record in the store was changed, moved or truncated.", "Restore it from a backup; see docs/operations.md.", 500, "DATA_LOSS", 74),
    Code(404, "store.foreign", "The store belongs to another HSM or another version of openk.", "Use the token the store was made with.", 503, "FAILED_PRECONDITION", 78),
    Code(410, "audit.unavailable", "The audit log cannot be written, so nothing is admitted.", "See `openk health` and the log.", 503, "UNAVAILABLE", 75, True),
    Code(411, "audit.damaged", "The audit log was changed or truncated.", "Keep the files and see docs/operations.md.", 503, "DATA_LOSS", 78),
    Code(412, "audit.unknown_entry", "The audit log has no such entry.", "See `openk audit head`.", 404, "NOT_FOUND", 66),
    Code(420, "backup.failed", "No backup was made.", "Mend what the message names; see `openk backup list` and the log.", 500, "FAILED_PRECONDITION", 74),
    Code(421, "backup.unconfigured", "openkd makes no backups: no folder for them is configured.", "Set backup.folder, then restart openkd.", 404, "FAILED_PRECONDITION", 78),
    # the daemon itself
    Code(500, "internal", "A mistake in openk.", "Report it with the request id; the log has the details.", 500, "INTERNAL", 70),
    Code(501, "daemon.overloaded", "The daemon has no locked memory or no place for this now.", "Wait for retry_after seconds.", 503, "RESOURCE_EXHAUSTED", 75, True),
    Code(502, "daemon.stopping", "The daemon is stopping.", "Connect again.", 503, "UNAVAILABLE", 75, True),
    Code(503, "daemon.sealed", "The daemon is sealed.", "An operator must unseal it: `openk unseal`.", 503, "FAILED_PRECONDITION", 75),
    Code(504, "daemon.unreachable", "No daemon answers at the socket.", "Start openkd, or name its socket with --socket or OPENK_SOCKET.", 503, "UNAVAILABLE", 69, True),
    Code(505, "daemon.misconfigured", "The daemon cannot start with this configuration.", "Correct what the message names.", 500, "FAILED_PRECONDITION", 78),
    # said by the client about the daemon; no daemon sends them
    Code(506, "daemon.timeout", "The daemon did not answer in time; what was asked may or may not have been done.", "Look before you try again; see `openk health`.", 504, "DEADLINE_EXCEEDED", 75),
    Code(507, "daemon.interrupted", "The connection broke before the answer; what was asked may or may not have been done.", "Look before you try again.", 502, "ABORTED", 75),
    Code(508, "daemon.unintelligible", "What answers at the socket does not speak this protocol.", "Check the socket's path; upgrade the older of client and daemon.", 502, "INTERNAL", 76),
)

CODES: Final[dict[str, Code]] = {row.name: row for row in _ROWS}
BY_NUMBER: Final[dict[int, Code]] = {row.number: row for row in _ROWS}

if len(CODES) != len(_ROWS) or len(BY_NUMBER) != len(_ROWS):
    raise AssertionError("two error codes share a name or a number")
