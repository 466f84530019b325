"""The one layout of everything openk encrypts (docs/formats.md).

     0        1        2           3                 19            23         35            n-16      n
     +--------+--------+-----------+-----------------+-------------+----------+-------------+---------+
     | format | kind   | algorithm | key id (16)     | key version | nonce    | ciphertext  | tag     |
     | u8 = 1 | u8     | u8 = 1    |                 | u32 big end.| 12 bytes | n - 51      | 16 bytes|
     +--------+--------+-----------+-----------------+-------------+----------+-------------+---------+
     |<------------------ header, 23 bytes ------------------------>|

Algorithm 2 is what a YubiHSM seals (hierarchy.schemes): behind the header stands the device's own blob, with its nonce

    23            36                                                       n-16      n
    +-------------+--------------------------------------------------------+---------+
    | nonce (13)  | CCM( 00 | SHA-256("openk.wrap-data.1" 00 | AAD) | data )| tag     |
    +-------------+--------------------------------------------------------+---------+

Algorithm 3 is what a PKCS#11 token without AES-GCM seals, with two keys (openk_hsm.pkcs11.composite): behind the nonce

    35                                    n-32      n
    +--------------------------+-----------+---------+    zeros: so many that all is 83 bytes longer than the data
    | AES-256-CBC, PKCS #7     | zeros     | tag     |    tag: HMAC-SHA-256 over AAD, nonce and ciphertext
    +--------------------------+-----------+---------+

The AAD given to AES-GCM is `header || context`.  The header has a fixed length, so the split is unambiguous:
key id, key version and kind are bound to the ciphertext together with the caller's AAD.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEADER: Final = struct.Struct(">BBB16sI")
FORMAT: Final = 1
AES_256_GCM: Final = 1
AES_256_CCM: Final = 2
"""AES-256-CCM by WRAP DATA of a YubiHSM 2. Only records and material of openk's own; clients' ciphertexts are GCM."""
AES_256_CBC_HMAC: Final = 3
"""The same on a PKCS#11 token that has no AES-GCM."""
KEY_ID: Final = 16
HEADER: Final = _HEADER.size
NONCE: Final = 12
TAG: Final = 16
BODY: Final = HEADER + NONCE
"""Where the ciphertext begins."""
OVERHEAD: Final = BODY + TAG


class Kind(IntEnum):
    """What is inside. `context` is what follows the header in the AAD."""

    ENCRYPT = 1  # a client's data; context = the client's AAD
    WRAP = 2  # a client's key bytes; context = the client's AAD
    RECORD = 3  # a record of the store; context = encode(RECORD, kind, id, version)
    MATERIAL = 4  # key bytes that openk uses itself; context = encode(MATERIAL, type, vault id, id, version, purpose)


class EnvelopeError(ValueError):
    """Not an envelope of this format. The text names the field, never the content."""


@dataclass(frozen=True, slots=True)
class Header:
    kind: Kind
    key: bytes
    version: int
    algorithm: int = AES_256_GCM

    def pack(self) -> bytes:
        return _HEADER.pack(FORMAT, self.kind, self.algorithm, self.key, self.version)


def parse(envelope: bytes | memoryview) -> Header:
    """The header of a client's whole ciphertext. Raises EnvelopeError."""
    if len(envelope) < OVERHEAD:
        raise EnvelopeError(f"shorter than {OVERHEAD} bytes")
    form, kind, algorithm, key, version = _HEADER.unpack_from(envelope)
    if form != FORMAT:
        raise EnvelopeError("unknown format version")
    if algorithm != AES_256_GCM:
        raise EnvelopeError("unknown algorithm")
    if version == 0:
        raise EnvelopeError("key versions count from 1")
    try:
        return Header(Kind(kind), bytes(key), int(version))
    except ValueError:
        raise EnvelopeError("unknown kind") from None
