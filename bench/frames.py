"""Requests as prepared bytes: the client only writes its slot number into the msgid's byte.

[u32 length][u32 offset of the msgid][frame]   numbers in the machine's order, as load.c reads them
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from openk.wire.packing import pack

MSGID_AT: Final = 2
"""`[0, msgid, ...]`: one byte of array head, one of type, then the msgid as positive fixint."""


def request(method: str, params: Mapping[str, object]) -> bytes:
    return pack([0, 0, method, [params]])


def ssh_sign(blob: bytes, data: bytes) -> bytes:
    """SSH_AGENTC_SIGN_REQUEST (draft-miller-ssh-agent 4.5), with flags 0."""
    body = b"\x0d" + _string(blob) + _string(data) + struct.pack(">I", 0)
    return _string(body)


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def write(path: Path, frames: Iterable[bytes]) -> None:
    path.write_bytes(b"".join(struct.pack("=II", len(frame), MSGID_AT) + frame for frame in frames))
