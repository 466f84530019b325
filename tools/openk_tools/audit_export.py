"""Copies the audit log through the daemon into a folder that any C2SP tlog client, and the verifier, can read.

checkpoint                  the signed head, written last
tile/<L>/<N>[.p/<W>]        hashes, 32 bytes each: 256 of them, or W at the right edge
tile/entries/<N>[.p/<W>]    entries: u16 big-endian length │ entry, and so on      (N as x001/x234/067)
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from openk_tools.audit_verify import WIDTH, Range, leaf_hash, tile_root
from openk_tools.failure import Failure
from openk_tools.session import Session
from openk_tools.values import Answer

PAGE: Final = 1000
_LONGEST: Final = 0xFFFF


def export(session: Session, folder: Path) -> Answer:
    """Copy everything under the newest signature; returns what the daemon said of its head.

    `folder` must be new or empty. Raises Failure (`audit.damaged`: what was copied is not what was signed),
    click.UsageError, OSError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{folder} exists and is not an empty folder: name a new one."
        raise click.UsageError(message)
    head = session.call("audit.head", {})
    text, size = str(head.get("checkpoint")), head.get("signed_size")
    if not isinstance(size, int):
        raise Failure("daemon.unintelligible")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    writer = _Tiles(folder)
    for entry in _entries(session, size):
        writer.append(entry)
    writer.finish()
    if writer.root() != _root_of(text):
        raise Failure("audit.damaged", "The entries the daemon gave are not those its checkpoint signs.")
    (folder / "checkpoint").write_text(text, encoding="utf-8")
    return head


def _entries(session: Session, size: int) -> Iterator[bytes]:
    first = 0
    while first < size:
        rows = session.call("audit.tail", {"first": first, "limit": min(PAGE, size - first)}).get("entries")
        if not isinstance(rows, list) or not rows:
            raise Failure("audit.damaged", f"The daemon has no entry {first}, which its checkpoint covers.")
        for row in rows:
            if not isinstance(row, dict) or row.get("index") != first or not isinstance(text := row.get("entry"), str):
                raise Failure("audit.damaged", f"The daemon gave something else for entry {first}.")
            if first < size:
                yield text.encode()
            first += 1


def _root_of(checkpoint: str) -> bytes:
    """The third line (C2SP tlog-checkpoint); the signature is the verifier's business."""
    lines = checkpoint.split("\n")
    try:
        return base64.b64decode(lines[2], validate=True)
    except (IndexError, binascii.Error):
        raise Failure("audit.damaged", "The daemon's checkpoint has no root hash.") from None


class _Tiles:
    """Writes each tile when it is full, and the unfinished ones at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[list[bytes]] = [[]]  # the unfinished tile of each level
        self._bundle: list[bytes] = []
        self._tree = Range()

    def append(self, entry: bytes) -> None:
        if len(entry) > _LONGEST:
            raise Failure("audit.damaged", f"Entry {self._tree.size} is longer than an entry can be.")
        hash_ = leaf_hash(entry)
        self._tree.append(hash_)
        self._bundle.append(len(entry).to_bytes(2, "big") + entry)
        self._add(0, hash_)

    def root(self) -> bytes:
        return self._tree.root()

    def finish(self) -> None:
        for level, row in enumerate(self._rows):
            if row:
                self._write(level, self._tree.size >> (8 * (level + 1)), row)
        if self._bundle:
            self._write("entries", self._tree.size // WIDTH, self._bundle)

    def _add(self, level: int, hash_: bytes) -> None:
        if level == len(self._rows):
            self._rows.append([])
        row = self._rows[level]
        row.append(hash_)
        if len(row) == WIDTH:
            number = (self._tree.size >> (8 * (level + 1))) - 1
            self._write(level, number, row)
            if level == 0:
                self._write("entries", number, self._bundle)
                self._bundle = []
            self._rows[level] = []
            self._add(level + 1, tile_root(row))

    def _write(self, level: int | str, number: int, parts: list[bytes]) -> None:
        name = f"{number % 1000:03}"
        while number := number // 1000:
            name = f"x{number % 1000:03}/{name}"
        width = len(parts)
        path = self._folder / "tile" / str(level) / (name if width == WIDTH else f"{name}.p/{width}")
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        path.write_bytes(b"".join(parts))
