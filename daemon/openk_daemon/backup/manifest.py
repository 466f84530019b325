"""What a backup says of itself: `backup.json`, written last.

    {"format": 1, "openk": "0.1.0", "made": 1767323045, "entries": 1042, "signed": 1040,
     "store": "store.db", "bytes": 9273344, "sha256": {"store.db": "<hex>", "checkpoint": "<hex>"}}

The hashes tell of damage, not of forgery: whoever can change the files can change them, too. What nobody can forge is
the signature of the audit key, under which the log in the store must fit.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from openk_daemon.backup.seam import Backup, BackupDamaged

FILE: Final = "backup.json"
CHECKPOINT: Final = "checkpoint"
FORMAT: Final = 1
LARGEST: Final = 4096
"""Bytes of the file; more is not looked at."""
NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-(0|[1-9][0-9]{0,18})")
"""UTC time, and the number of entries."""
_CHUNK: Final = 1 << 20
_Count = Annotated[int, Meta(ge=0, le=1 << 62)]
_Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`made`: Unix seconds. `store`: the name of the store's file; `bytes`: its size."""

    format: Annotated[int, Meta(ge=1)]
    openk: Annotated[str, Meta(max_length=64)]
    made: _Count
    entries: _Count
    signed: _Count
    store: Annotated[str, Meta(pattern="^[a-z][a-z0-9.]{0,63}$")]
    bytes: _Count
    sha256: dict[str, _Hash]


def name_of(made: int, entries: int) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(made))}-{entries}"


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(content: bytes) -> Manifest:
    """Raises BackupDamaged."""
    if len(content) > LARGEST:
        raise BackupDamaged(f"{FILE} is too long")
    try:
        manifest = msgspec.json.decode(content, type=Manifest, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackupDamaged(f"{FILE} is not what openk writes: {error}") from error
    if manifest.format != FORMAT:
        raise BackupDamaged(
            f"the backup has format {manifest.format}, and this openk reads {FORMAT}: use the openk that made it"
        )
    if manifest.sha256.keys() != {manifest.store, CHECKPOINT} or manifest.signed > manifest.entries:
        raise BackupDamaged(f"{FILE} is not what openk writes: it contradicts itself")
    return manifest


def read(folder: Path) -> Manifest:
    """Of the backup in `folder`. Raises BackupDamaged."""
    return decode(read_small(folder / FILE))


def read_small(path: Path) -> bytes:
    """A file of at most LARGEST bytes. Raises BackupDamaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BackupDamaged(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise BackupDamaged(f"{path.name} is too long")
    return content


def hash_file(path: Path, going_on: Callable[[], None]) -> tuple[str, int]:
    """SHA-256 in hex, and the size. `going_on` is called now and then. Raises OSError."""
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            going_on()
    return digest.hexdigest(), size


def summary(name: str, manifest: Manifest) -> Backup:
    return Backup(name, manifest.made, manifest.entries, manifest.signed, manifest.bytes)
