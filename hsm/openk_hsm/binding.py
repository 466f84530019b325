"""A wrapped key object: KWP (RFC 5649) plus an HMAC that binds what KWP cannot.

KWP has no associated data, and PKCS#11 lets whoever unwraps choose type and usage (an AES blob opens as a
generic secret).  So the wrapper's `mac` key, in the HSM, answers for everything that must hold; no blob
reaches C_UnwrapKey before that answer was recomputed and compared in constant time.

    0        1        2        3        4             6              22            54
    +--------+--------+--------+--------+-------------+--------------+-------------+--------------
    | format | wrap   | algo-  | pur-   | attributes  | wrapping key | HMAC-SHA-256| KWP blob
    | = 1    | = 1    | rithm  | pose   | u16, big    | 16 bytes     | 32 bytes    | 16..8192 bytes
    +--------+--------+--------+--------+-------------+--------------+-------------+--------------

    HMAC input:  "openk.key-object.1" NUL | bytes 0..22 | u32 big: length of context | context | KWP blob

`wrap` 1 is AES-256-KWP with HMAC-SHA-256.  Numbers of algorithm, purpose and attributes: openk_hsm.specs.
The wrapping key's id is a digest over what names it (see `resident_id`, `wrapped_id`), not over its value.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from openk_hsm.errors import InvalidCiphertext
from openk_hsm.seam import KeySpec
from openk_hsm.specs import ALGORITHM_NUMBERS, PURPOSE_NUMBERS, bound_attributes

FORMAT: Final = 1
WRAP_KWP_HMAC: Final = 1
TAG_BYTES: Final = 32
ID_BYTES: Final = 16
HEADER: Final = struct.Struct(">BBBBH16s")
OVERHEAD: Final = HEADER.size + TAG_BYTES
MAX_KWP: Final = 8192
MAX_CONTEXT: Final = 4096
_DOMAIN: Final = b"openk.key-object.1\x00"


def resident_id(label: str, id_: bytes) -> bytes:
    """The id of a wrapping key that is a token object: 16 bytes."""
    name = label.encode()
    digest = hashlib.sha256(b"openk.wrapping-key.resident\x00" + struct.pack(">I", len(name)) + name + id_)
    return digest.digest()[:ID_BYTES]


def wrapped_id(spec: KeySpec, context: bytes) -> bytes:
    """The id of a wrapping key that is itself wrapped: its context names it and survives a re-wrap. 16 bytes."""
    numbers = bytes((ALGORITHM_NUMBERS[spec.algorithm], PURPOSE_NUMBERS[spec.purpose]))
    return hashlib.sha256(b"openk.wrapping-key.wrapped\x00" + numbers + context).digest()[:ID_BYTES]


def header(spec: KeySpec, wrapping_key: bytes) -> bytes:
    """Bytes 0..22 of a blob. `wrapping_key`: 16 bytes from `resident_id` or `wrapped_id`."""
    return HEADER.pack(
        FORMAT,
        WRAP_KWP_HMAC,
        ALGORITHM_NUMBERS[spec.algorithm],
        PURPOSE_NUMBERS[spec.purpose],
        int(bound_attributes(spec)),
        wrapping_key,
    )


def authenticated(head: bytes, context: bytes, kwp: bytes) -> bytes:
    """The HMAC's input: holds nothing secret (the KWP blob is ciphertext)."""
    return b"".join((_DOMAIN, head, struct.pack(">I", len(context)), context, kwp))


def assemble(head: bytes, tag: bytes, kwp: bytes) -> bytes:
    return head + tag + kwp


def split(blob: bytes, spec: KeySpec, wrapping_key: bytes) -> tuple[bytes, bytes, bytes]:
    """A blob's header, tag and KWP part. Raises InvalidCiphertext unless the header says exactly what is expected.

    The tag is not checked here: the caller has the HSM compute it over `authenticated` and compares.
    """
    if not OVERHEAD + 16 <= len(blob) <= OVERHEAD + MAX_KWP:
        raise InvalidCiphertext("a wrapped key has an impossible length")
    head = bytes(blob[: HEADER.size])
    if head[0] != FORMAT or head[1] != WRAP_KWP_HMAC:
        raise InvalidCiphertext("a wrapped key is of an unknown format")
    if head != header(spec, wrapping_key):
        raise InvalidCiphertext("a wrapped key is for another spec or another wrapping key")
    kwp = bytes(blob[OVERHEAD:])
    if len(kwp) % 8:
        raise InvalidCiphertext("a wrapped key has an impossible length")
    return head, bytes(blob[HEADER.size : OVERHEAD]), kwp


def unbound() -> InvalidCiphertext:
    """The error for a tag that does not match."""
    return InvalidCiphertext("a wrapped key's binding does not match")
