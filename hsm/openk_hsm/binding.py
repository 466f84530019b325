"""A wrapped key object: what the token wrapped, plus an HMAC that binds what wrapping cannot.

RFC 5649 (KWP) and CBC have no associated data, and PKCS#11 lets whoever unwraps choose type and usage (an AES blob
opens as a generic secret).  So the wrapper's `mac` key, in the HSM, answers for everything that must hold; no blob
reaches C_UnwrapKey before that answer was recomputed and compared in constant time.

    0        1        2        3        4             6              22            54
    +--------+--------+--------+--------+-------------+--------------+-------------+--------------
    | format | wrap   | algo-  | pur-   | attributes  | wrapping key | HMAC-SHA-256| wrapped
    | = 1    |        | rithm  | pose   | u16, big    | 16 bytes     | 32 bytes    | 16..8192 bytes
    +--------+--------+--------+--------+-------------+--------------+-------------+--------------

    HMAC input:  "openk.key-object.1" NUL | bytes 0..22 | u32 big: length of context | context | wrapped

    wrap 1  AES-256-KWP (RFC 5649)          wrapped = KWP blob
    wrap 2  AES key wrap (RFC 3394) of the PKCS #7-padded key     wrapped = its blob
    wrap 3  AES-256-CBC, PKCS #7 padding    wrapped = IV, 16 bytes | ciphertext
    wrap 4  AES key wrap (RFC 3394)         wrapped = its blob

    A key that is two on the token (AES_256_CBC_HMAC):    wrapped = u16 big: length of first | first | second

Each blob says how it was wrapped: after a token's firmware brings a better way, old blobs still open.
Numbers of algorithm, purpose and attributes: openk_hsm.specs.
The wrapping key's id is a digest over what names it (see `resident_id`, `wrapped_id`), not over its value.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from typing import Final

from openk_hsm.errors import InvalidCiphertext
from openk_hsm.seam import Algorithm, KeySpec
from openk_hsm.specs import ALGORITHM_NUMBERS, PURPOSE_NUMBERS, bound_attributes, spec_of


class Wrap(IntEnum):
    """How a token wraps a key object, best first. Numbers are part of stored blobs: they never change meaning."""

    KWP = 1
    PADDED = 2
    CBC = 3
    PLAIN = 4


FORMAT: Final = 1
TAG_BYTES: Final = 32
ID_BYTES: Final = 16
HEADER: Final = struct.Struct(">BBBBH16s")
OVERHEAD: Final = HEADER.size + TAG_BYTES
MAX_WRAPPED: Final = 8192
MAX_CONTEXT: Final = 4096
ONLY_KWP: Final = frozenset({Wrap.KWP})
_DOMAIN: Final = b"openk.key-object.1\x00"
_FIRST: Final = struct.Struct(">H")


def resident_id(label: str, id_: bytes) -> bytes:
    """The id of a wrapping key that is a token object: 16 bytes."""
    name = label.encode()
    digest = hashlib.sha256(b"openk.wrapping-key.resident\x00" + struct.pack(">I", len(name)) + name + id_)
    return digest.digest()[:ID_BYTES]


def wrapped_id(spec: KeySpec, context: bytes) -> bytes:
    """The id of a wrapping key that is itself wrapped: its context names it and survives a re-wrap. 16 bytes."""
    numbers = bytes((ALGORITHM_NUMBERS[spec.algorithm], PURPOSE_NUMBERS[spec.purpose]))
    return hashlib.sha256(b"openk.wrapping-key.wrapped\x00" + numbers + context).digest()[:ID_BYTES]


def header(spec: KeySpec, wrapping_key: bytes, wrap: Wrap = Wrap.KWP) -> bytes:
    """Bytes 0..22 of a blob. `wrapping_key`: 16 bytes from `resident_id` or `wrapped_id`."""
    return HEADER.pack(
        FORMAT,
        wrap,
        ALGORITHM_NUMBERS[spec.algorithm],
        PURPOSE_NUMBERS[spec.purpose],
        int(bound_attributes(spec)),
        wrapping_key,
    )


def authenticated(head: bytes, context: bytes, wrapped: bytes) -> bytes:
    """The HMAC's input: holds nothing secret (`wrapped` is ciphertext)."""
    return b"".join((_DOMAIN, head, struct.pack(">I", len(context)), context, wrapped))


def assemble(head: bytes, tag: bytes, wrapped: bytes) -> bytes:
    return head + tag + wrapped


def split(
    blob: bytes, spec: KeySpec, wrapping_key: bytes, wraps: frozenset[Wrap] = ONLY_KWP
) -> tuple[bytes, bytes, bytes]:
    """A blob's header, tag and wrapped part. Raises InvalidCiphertext unless the header says exactly what is expected.

    `wraps`: what the caller can unwrap.  The tag is not checked here: the caller has the HSM compute it over
    `authenticated` and compares.
    """
    if not OVERHEAD + 16 <= len(blob) <= OVERHEAD + MAX_WRAPPED:
        raise InvalidCiphertext("a wrapped key has an impossible length")
    head = bytes(blob[: HEADER.size])
    if head[0] != FORMAT or head[1] not in set(Wrap):
        raise InvalidCiphertext("a wrapped key is of an unknown format")
    wrap = Wrap(head[1])
    if wrap not in wraps:
        raise InvalidCiphertext(f"a wrapped key is wrapped in a way that this token does not do ({wrap.name})")
    if head != header(spec, wrapping_key, wrap):
        raise InvalidCiphertext("a wrapped key is for another spec or another wrapping key")
    wrapped = bytes(blob[OVERHEAD:])
    if wrap is Wrap.KWP and not is_pair(spec) and len(wrapped) % 8:
        raise InvalidCiphertext("a wrapped key has an impossible length")
    return head, bytes(blob[HEADER.size : OVERHEAD]), wrapped


def spec_in(blob: bytes) -> KeySpec | None:
    """The spec that a blob says it is for. It is bound, but checked only when the blob is opened."""
    return spec_of(blob[2], blob[3]) if len(blob) >= OVERHEAD else None


def is_pair(spec: KeySpec) -> bool:
    """Whether a key is two keys on the token: one to encrypt, one to authenticate."""
    return spec.algorithm is Algorithm.AES_256_CBC_HMAC


def join_pair(first: bytes, second: bytes) -> bytes:
    return _FIRST.pack(len(first)) + first + second


def split_pair(wrapped: bytes) -> tuple[bytes, bytes]:
    """The two blobs of a pair. Raises InvalidCiphertext."""
    length = _FIRST.unpack_from(wrapped)[0]
    first, second = wrapped[_FIRST.size : _FIRST.size + length], wrapped[_FIRST.size + length :]
    if not first or not second or len(first) != length:
        raise InvalidCiphertext("a wrapped pair of keys has an impossible length")
    return first, second


def unbound() -> InvalidCiphertext:
    """The error for a tag that does not match."""
    return InvalidCiphertext("a wrapped key's binding does not match")
