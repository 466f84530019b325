"""What travels between a lane and a worker: one SOCK_SEQPACKET message each, native byte order (one machine).

    hello    H | version u8 | intent u16 | run u32 | region bytes u64                    + the region's fd (SCM_RIGHTS)
             intent 0: open; 1: open, and unseal first; 2: seal, bytes 0 and no fd: the answer is a refusal
    batch    B | deaths u8 | count u16 | deadline u32, milliseconds | count requests
    call     C | deaths u8 | 0 u16     | deadline u32, milliseconds | msgpack [seq, asked for, method, arguments...]
             deaths: of workers that had it; it is done again, alone
    answers  A | 0 u8 | count u16 | 0 u32 | count rows of: seq u32, length u32
    result   R | 0 u8 | 0 u16 | 0 u32 | msgpack [seq, value]
    error    X | 0 u8 | 0 u16 | 0 u32 | msgpack [seq, code, text, device, retry_after or nil]
    ready    I | 0 u8 | 0 u16 | 0 u32 | msgpack map of TokenInfo              the answer to hello
    refusal  E | 0 u8 | 0 u16 | 0 u32 | as in X, seq 0                       the answer to hello; then the worker closes

    request, 40 bytes; the inputs lie one after another in the region:

     0      4      5      6        8      12      16        20         24      28      32          40
     +------+------+------+--------+------+-------+---------+----------+-------+-------+-----------+
     | seq  | op   | mech | param  | slot | at    | AAD     | data     | out   | room  | asked for |
     | u32  | u8   | u8   | len u16| u32  | u32   | len u32 | len u32  | u32   | u32   | u64       |
     +------+------+------+--------+------+-------+---------+----------+-------+-------+-----------+
                                             |
                            region:          [ param | AAD | data ]  ...   [ out: room bytes ]

`run` and `asked for` are for the worker's log: the two halves of the id of the client's request (openk_hsm.serving); 0
where the daemon asks for itself.

Both sides are ours, but a worker holds vendor code: the lane checks every length and every seq it is told.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeGuard, cast

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]  # it has no stubs
from msgpack.exceptions import (  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    UnpackException,
)

from openk_hsm import errors
from openk_hsm.errors import HsmError
from openk_hsm.roots import AUDIT_KEYS
from openk_hsm.seam import Algorithm, Generated, KeySpec, Notice, ObjectInfo, Purpose, TokenInfo

_packb = cast(Callable[[object], bytes], msgpack.packb)  # pyright: ignore[reportUnknownMemberType]
_unpackb = cast(Callable[[memoryview], object], msgpack.unpackb)  # pyright: ignore[reportUnknownMemberType]

VERSION: Final = 2
HEADER: Final = struct.Struct("=cBHI")
HELLO: Final = struct.Struct("=cBHIQ")
REQUEST: Final = struct.Struct("=IBBHIIIIIIQ")
ROW: Final = struct.Struct("=II")
MAX_BATCH: Final = 128
MAX_MESSAGE: Final = 64 << 10

HELLO_KIND: Final = b"H"
BATCH: Final = b"B"
CALL: Final = b"C"
ANSWERS: Final = b"A"
RESULT: Final = b"R"
ERROR: Final = b"X"
READY: Final = b"I"
REFUSAL: Final = b"E"


class Intent(IntEnum):
    """What a daemon wants of the worker that it greets."""

    OPEN = 0
    UNSEAL = 1
    SEAL = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """`size`: the region's, in bytes. `run`: the daemon's (openk_hsm.serving)."""

    size: int
    intent: Intent = Intent.OPEN
    run: int = 0


class BadFrame(HsmError):
    """The other side does not keep to the format: the connection is given up."""

    code = "hsm.unavailable"


@dataclass(frozen=True, slots=True)
class Call:
    """A cold call: one of `Backend`'s cold methods by name, arguments as msgpack has them. `request`: the count of the
    request that it is made for, 0 where the daemon makes it for itself."""

    seq: int
    method: str
    arguments: tuple[object, ...]
    request: int = 0


_KINDS: Final[dict[str, type[HsmError]]] = {
    kind.code: kind
    for kind in (
        HsmError,
        errors.Unavailable,
        errors.TimedOut,
        errors.Interrupted,
        errors.WrongPin,
        errors.TokenMissing,
        errors.TokenUninitialised,
        errors.TokenFull,
        errors.Busy,
        errors.Sealed,
        errors.Untrusted,
        errors.Unsupported,
        errors.InvalidCiphertext,
        errors.InvalidInput,
    )
}


def pack_hello(hello: Hello) -> bytes:
    return HELLO.pack(HELLO_KIND, VERSION, hello.intent, hello.run, hello.size)


def unpack_hello(message: bytes | memoryview) -> Hello:
    """Raises BadFrame."""
    if len(message) != HELLO.size:
        raise BadFrame("a hello has the wrong length")
    kind, version, intent, run, size = HELLO.unpack(message)
    if kind != HELLO_KIND or version != VERSION or intent not in set(Intent):
        raise BadFrame("a hello is of another version: restart daemon and workers together")
    return Hello(size, Intent(intent), run)


def pack_call(call: Call, deadline_ms: int, deaths: int = 0) -> bytes:
    """`deaths`: of workers that had it, at most 255 are told."""
    body = _pack([call.seq, call.request, call.method, *call.arguments])
    return HEADER.pack(CALL, min(deaths, 255), 0, deadline_ms) + body


def unpack_call(message: memoryview) -> Call:
    """Raises BadFrame."""
    body = unpack_body(message)
    if _is_list(body) and len(body) > 2:
        match body[:3]:
            case [int(seq), int(request), str(method)] if request >= 0:
                return Call(seq, method, tuple(body[3:]), request)
            case _:
                pass
    raise BadFrame("a call is malformed")


def pack_body(kind: bytes, body: object) -> bytes:
    return HEADER.pack(kind, 0, 0, 0) + _pack(body)


def unpack_body(message: memoryview) -> object:
    """The msgpack value behind the header. Raises BadFrame."""
    try:
        return _unpackb(message[HEADER.size :])
    except (ValueError, UnpackException) as error:
        raise BadFrame(f"a message is not msgpack: {type(error).__name__}") from None


def _pack(value: object) -> bytes:
    return _packb(value)


def pack_error(kind: bytes, seq: int, error: HsmError) -> bytes:
    return pack_body(kind, [seq, error.code, str(error)[:1000], error.device, error.retry_after])


def unpack_error(message: memoryview) -> tuple[int, HsmError]:
    """Seq and the error. Raises BadFrame."""
    match unpack_body(message):
        case [int(seq), str(code), str(text), str(device), (None | int() | float()) as retry_after]:
            return seq, _KINDS.get(code, HsmError)(text, device=device, retry_after=retry_after)
        case _:
            raise BadFrame("an error message is malformed")


def unpack_result(message: memoryview) -> tuple[int, object]:
    """Seq and value. Raises BadFrame."""
    body = unpack_body(message)
    if not _is_list(body) or len(body) != 2 or not isinstance(body[0], int):
        raise BadFrame("a result is malformed")
    return body[0], body[1]


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def spec_to_wire(spec: KeySpec) -> list[str]:
    return [spec.algorithm.value, spec.purpose.value]


def spec_from_wire(value: object) -> KeySpec:
    """Raises BadFrame."""
    if _is_list(value) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):
        try:
            return KeySpec(Algorithm(value[0]), Purpose(value[1]))
        except ValueError:
            pass
    raise BadFrame("a key spec is unknown")


def info_to_wire(info: TokenInfo) -> dict[str, object]:
    return {
        "backend": info.backend,
        "label": info.label,
        "serial": info.serial,
        "model": info.model,
        "firmware": info.firmware,
        "identity": info.identity,
        "resident": [spec_to_wire(spec) for spec in info.resident],
        "wrapped": [spec_to_wire(spec) for spec in info.wrapped],
        "mechanisms": list(info.mechanisms),
        "audit_public": info.audit_public,
        "chosen": dict(info.chosen),
        "data": info.data.value,
        "audit": info.audit,
        "resident_vaults": info.resident_vaults,
    }


def info_from_wire(value: object) -> TokenInfo:
    """Raises BadFrame."""
    if not isinstance(value, dict):
        raise BadFrame("a token's description is malformed")
    fields = cast(dict[object, object], value)
    texts = [fields.get(name) for name in ("backend", "label", "serial", "model", "firmware")]
    lists = [fields.get(name) for name in ("resident", "wrapped", "mechanisms")]
    match texts, lists, fields.get("identity"), fields.get("audit_public"):
        case [
            [str(backend), str(label), str(serial), str(model), str(firmware)],
            [resident, wrapped, mechanisms],
            bytes(identity),
            bytes(audit_public),
        ] if _is_list(resident) and _is_list(wrapped) and _is_list(mechanisms):
            return TokenInfo(
                backend=backend,
                label=label,
                serial=serial,
                model=model,
                firmware=firmware,
                identity=identity,
                resident=frozenset(map(spec_from_wire, resident)),
                wrapped=frozenset(map(spec_from_wire, wrapped)),
                mechanisms=tuple(map(str, mechanisms)),
                audit_public=audit_public,
                chosen=_texts_by_name(fields.get("chosen")),
                data=_data_algorithm(fields.get("data")),
                audit=_audit_algorithm(fields.get("audit", Algorithm.ED25519)),  # a store may keep an older one
                resident_vaults=fields.get("resident_vaults") is True,
            )
        case _:
            raise BadFrame("a token's description is malformed")


def _data_algorithm(value: object) -> Algorithm:
    for algorithm in (Algorithm.AES_256_GCM, Algorithm.AES_256_CCM, Algorithm.AES_256_CBC_HMAC):
        if value == algorithm.value:
            return algorithm
    raise BadFrame("a token's description is malformed")


def _audit_algorithm(value: object) -> Algorithm | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in AUDIT_KEYS:
        raise BadFrame("a token's description is malformed")
    return Algorithm(value)


def _texts_by_name(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadFrame("a token's description is malformed")
    return {str(name): str(text) for name, text in cast(dict[object, object], value).items()}


def generated_from_wire(value: object) -> Generated:
    """Raises BadFrame."""
    match value:
        case [(None | bytes()) as blob, (None | bytes()) as public]:
            return Generated(blob, public)
        case _:
            raise BadFrame("a generated key is malformed")


def objects_from_wire(value: object) -> list[ObjectInfo]:
    """Raises BadFrame."""
    if not _is_list(value):
        raise BadFrame("a list of objects is malformed")
    found: list[ObjectInfo] = []
    for row in value:
        match row:
            case [str(label), bytes(id_), str(kind), str(algorithm)]:
                found.append(ObjectInfo(label, id_, kind, algorithm))
            case _:
                raise BadFrame("a list of objects is malformed")
    return found


def certificates_from_wire(value: object) -> list[bytes]:
    """Raises BadFrame."""
    if not _is_list(value):
        raise BadFrame("an attestation is malformed")
    certificates = [certificate for certificate in value if isinstance(certificate, bytes)]
    if len(certificates) != len(value):
        raise BadFrame("an attestation is malformed")
    return certificates


def notices_from_wire(value: object) -> list[Notice]:
    """Raises BadFrame."""
    if not _is_list(value):
        raise BadFrame("a list of notices is malformed")
    found: list[Notice] = []
    for row in value:
        match row:
            case [int(number), int(at), bool(alarm), str(text)]:
                found.append(Notice(number, at, alarm, text))
            case _:
                raise BadFrame("a list of notices is malformed")
    return found
