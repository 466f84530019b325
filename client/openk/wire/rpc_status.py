"""An error as gRPC tells it: google.rpc.Status, as JSON and as the bytes of `grpc-status-details-bin`.

    Status     { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
    Any        { string type_url = 1; bytes value = 2; }
    ErrorInfo  { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
    RetryInfo  { google.protobuf.Duration retry_delay = 1; }      Duration { int64 seconds = 1; int32 nanos = 2; }
    RequestInfo{ string request_id = 1; string serving_data = 2; }

(googleapis: google/rpc/status.proto, error_details.proto.)  Written by hand: five messages of strings and small
numbers are no reason for a dependency.  A field of the protobuf wire format is a varint of number << 3 | type, then,
for type 2, a varint of the length and so many bytes; defaults (0, empty) are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from openk.wire.codes import Code
from openk.wire.writer import Detail

DOMAIN: Final = "openk"
TYPES: Final = "type.googleapis.com/google.rpc."
_VARINT: Final = 0
_BYTES: Final = 2
_BILLION: Final = 1_000_000_000


class GrpcCode(IntEnum):
    """The canonical codes (google/rpc/code.proto)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def reason_of(code: Code) -> str:
    """ErrorInfo.reason: `key.unknown` is KEY_UNKNOWN, within [A-Z][A-Z0-9_]+[A-Z0-9] and 63 characters."""
    return code.name.upper().replace(".", "_")


def status_json(
    code: Code,
    message: str,
    *,
    request: str | None = None,
    retry_after: float | None = None,
    details: Mapping[str, Detail] | None = None,
) -> dict[str, object]:
    """The ProtoJSON form. `message` and `details` are what goes over the wire: sanitised before."""
    metadata = _metadata(code, details)
    told: list[dict[str, object]] = [
        {"@type": TYPES + "ErrorInfo", "reason": reason_of(code), "domain": DOMAIN, "metadata": metadata}
    ]
    if retry_after is not None:
        seconds, nanos = _duration(retry_after)
        told.append({"@type": TYPES + "RetryInfo", "retryDelay": f"{seconds}.{nanos:09}s"})
    if request is not None:
        told.append({"@type": TYPES + "RequestInfo", "requestId": request})
    return {"code": int(GrpcCode[code.grpc]), "message": message, "details": told}


def status_bytes(
    code: Code,
    message: str,
    *,
    request: str | None = None,
    retry_after: float | None = None,
    details: Mapping[str, Detail] | None = None,
) -> bytes:
    """The same as a serialized message."""
    info = _text(1, reason_of(code)) + _text(2, DOMAIN)
    for name, value in _metadata(code, details).items():
        info += _field(3, _text(1, name) + _text(2, value))
    told = _field(3, _any("ErrorInfo", info))
    if retry_after is not None:
        seconds, nanos = _duration(retry_after)
        told += _field(3, _any("RetryInfo", _field(1, _number(1, seconds) + _number(2, nanos))))
    if request is not None:
        told += _field(3, _any("RequestInfo", _text(1, request)))
    return _number(1, GrpcCode[code.grpc]) + _text(2, message) + told


def _metadata(code: Code, details: Mapping[str, Detail] | None) -> dict[str, str]:
    """Everything is text there; what is none already is JSON."""
    shown = {"code": code.name, "number": str(code.number)}
    for name, value in (details or {}).items():
        shown.setdefault(name, value if isinstance(value, str) else json.dumps(value))
    return shown


def _duration(seconds: float) -> tuple[int, int]:
    nanos = round(max(0.0, seconds) * _BILLION)
    return nanos // _BILLION, nanos % _BILLION


def _any(name: str, message: bytes) -> bytes:
    return _text(1, TYPES + name) + _field(2, message)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode()) if text else b""


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    """Base 128, least significant group first; `value` is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
