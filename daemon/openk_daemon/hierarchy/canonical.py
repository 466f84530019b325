"""One way to turn a list of values into bytes, so that two different lists never give the same bytes.

    +-----------+----------+-----------+----------+---
    | length u32| part     | length u32| part     | ...      big endian; text as UTF-8; integers as u64
    +-----------+----------+-----------+----------+---

Used for what is authenticated but not stored (AAD, contexts) and for what is digested (names). The first
part is always the domain ("openk/v1/..."), so that an answer made for one use is of no use for another.
"""

from __future__ import annotations

from typing import Final

NAME: Final = "openk/v1/name"
RECORD: Final = "openk/v1/record"
MATERIAL: Final = "openk/v1/material"
SEGMENT: Final = "openk/v1/segment"
KEY_OBJECT: Final = "openk/v1/key-object"


def encode(*parts: bytes | str | int) -> bytes:
    """Raises OverflowError for integers outside u64; nothing else can fail."""
    pieces: list[bytes] = []
    for part in parts:
        if isinstance(part, int):
            piece = part.to_bytes(8, "big")
        elif isinstance(part, str):
            piece = part.encode()
        else:
            piece = part
        pieces.append(len(piece).to_bytes(4, "big"))
        pieces.append(piece)
    return b"".join(pieces)
