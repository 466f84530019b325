"""Write MessagePack-RPC messages.

Two ways, by whether there is a secret in it. Without: `pack_request`, `pack_response`: bytes, made by msgpack.
With: every memoryview, anywhere in maps and lists, is framed by hand as a bin value, and its bytes go from where
they are to where they are sent from and nowhere else; msgpack packs what lies between (it would copy a
memoryview into its own buffer and leave it there).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import pack
from typing import Final, Literal, TypeAlias

from openk.wire.codes import Code
from openk.wire.packing import pack as _pack

Detail = str | int | bool | list[str] | list[int]
Writable: TypeAlias = (
    "bool | int | float | str | bytes | memoryview | Sequence[Writable] | Mapping[str, Writable] | None"
)
"""What can be written. memoryview: of bytes, contiguous."""
Piece = bytes | memoryview

_SCALARS: Final = frozenset({str, int, bytes, bool, float, type(None)})
_REQUEST: Final = 0
_RESPONSE: Final = 1


def pack_request(msgid: int, method: str, params: Mapping[str, Writable]) -> bytes:
    """A request without secrets: [0, msgid, method, [params]]."""
    return _pack((_REQUEST, msgid, method, (params,)))


def pack_response(msgid: int, error: Writable, result: Writable) -> bytes:
    """A response without secrets: [1, msgid, error, result]. A memoryview in it would be copied: see `pack_into`."""
    return _pack((_RESPONSE, msgid, error, result))


def lay_out_request(msgid: int, method: str, params: Mapping[str, Writable]) -> list[Piece]:
    """The same request with secrets, as pieces to be sent one after another (sendmsg): bytes between, and the
    memoryviews of `params` themselves."""
    pieces: list[Piece] = [b"\x94\x00" + _pack(msgid) + _pack(method) + b"\x91"]
    _lay_out(params, pieces)
    return _join(pieces)


def lay_out_response(msgid: int, result: Writable) -> list[Piece]:
    """A response with secrets, as pieces (small ones: they are meant for `write`): [1, msgid, nil, result]."""
    pieces: list[Piece] = [b"\x94\x01" + _pack(msgid) + b"\xc0"]
    _lay_out(result, pieces)
    return pieces


def total(pieces: Iterable[Piece]) -> int:
    """Bytes of all pieces."""
    return sum(map(len, pieces))


def write(view: memoryview, pieces: Iterable[Piece]) -> int:
    """Copy the pieces into `view`, one after another; the number of bytes. Raises ValueError where they do not fit."""
    at = 0
    for piece in pieces:
        end = at + len(piece)
        view[at:end] = piece
        at = end
    return at


def measure(msgid: int, result: Writable) -> int:
    """The bytes that `pack_into` will write."""
    return total(lay_out_response(msgid, result))


def pack_into(view: memoryview, msgid: int, result: Writable) -> int:
    """Write a response with secrets into `view` (locked memory); the number of bytes. Raises ValueError where it
    does not fit. To measure and write, `lay_out_response`, `total` and `write` do it in one walk."""
    return write(view, lay_out_response(msgid, result))


def describe_error(
    code: Code,
    message: str,
    *,
    form: Literal["pair", "map"],
    request: str | None = None,
    retry_after: float | None = None,
    details: Mapping[str, Detail] | None = None,
) -> list[Writable] | dict[str, Writable]:
    """An error as it goes over the wire. `pair`: [number, "code: message"], which any MessagePack-RPC client can
    show. `map`: code, number, message, and where there are any request (its id), retry_after (seconds), details."""
    if form == "pair":
        return [code.number, f"{code.name}: {message}"]
    described: dict[str, Writable] = {"code": code.name, "number": code.number, "message": message}
    if request is not None:
        described["request"] = request
    if retry_after is not None:
        described["retry_after"] = retry_after
    if details:
        described["details"] = dict(details)
    return described


def bin_header(length: int) -> bytes:
    """The header of a bin value of `length` bytes. Raises struct.error for 4 GiB and more."""
    if length < 0x100:
        return pack(">BB", 0xC4, length)
    if length < 0x10000:
        return pack(">BH", 0xC5, length)
    return pack(">BI", 0xC6, length)


def _lay_out(value: Writable, pieces: list[Piece]) -> None:
    if type(value) is memoryview:
        pieces.append(bin_header(len(value)))
        pieces.append(value)
    elif type(value) in _SCALARS:  # before Mapping, whose check is the dearest here
        pieces.append(_pack(value))
    elif isinstance(value, dict | Mapping):
        pieces.append(_container_header(len(value), 0x80, 0xDE))
        for key, entry in value.items():
            if type(entry) is memoryview:
                pieces.append(_pack(key) + bin_header(len(entry)))
                pieces.append(entry)
            else:
                pieces.append(_pack(key))
                _lay_out(entry, pieces)
    elif isinstance(value, list | tuple):
        pieces.append(_container_header(len(value), 0x90, 0xDC))
        for entry in value:
            _lay_out(entry, pieces)
    else:
        pieces.append(_pack(value))


def _container_header(count: int, short: int, long: int) -> bytes:
    if count < 16:
        return bytes((short | count,))
    if count < 0x10000:
        return pack(">BH", long, count)
    return pack(">BI", long + 1, count)


def _join(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring bytes as one."""
    joined: list[Piece] = []
    plain: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            plain.append(piece)
            continue
        joined.append(b"".join(plain))
        joined.append(piece)
        plain = []
    if plain:
        joined.append(b"".join(plain))
    return joined
