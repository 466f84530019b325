"""A backup as whoever kept it hands it back: what it says of itself, and a store that was edited."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from openk_daemon.audit.checkpoint import Checkpoint
from openk_daemon.audit.merkle import leaf_hash, root_of
from openk_daemon.backup import manifest
from openk_daemon.backup.manifest import CHECKPOINT, Manifest
from openk_daemon.backup.seam import BackupDamaged
from openk_daemon.backup.verification import hash_of, verify
from openk_daemon.store.copying import SqliteOriginal
from openk_daemon.store.database import FILE, open_database, pack_entries
from tests.fuzz.scratch import scratch
from tests.fuzz.target import Target

_ENTRIES = [b'{"number":%d}' % number for number in range(600)]
_PAGE = 4096


def run_manifest(data: bytes) -> None:
    """What is read is written the same again, and names no file but its own."""
    try:
        found = manifest.decode(data)
    except BackupDamaged:
        return
    assert manifest.decode(manifest.encode(found)) == found
    assert found.sha256.keys() == {found.store, CHECKPOINT}
    assert "/" not in found.store
    assert found.signed <= found.entries


def _manifests() -> Iterator[bytes]:
    yield manifest.encode(_manifest(bytes(10), b"", entries=3))
    yield b'{"format": 2}'


def _manifest(store: bytes, head: bytes, entries: int) -> Manifest:
    return Manifest(
        format=manifest.FORMAT, openk="0.1.0", made=1_767_323_045, entries=entries, signed=entries, store=FILE,
        bytes=len(store), sha256={FILE: hash_of(store), CHECKPOINT: hash_of(head)},
    )  # fmt: skip


@cache
def _state() -> tuple[Path, bytes]:
    """A folder with a head and a store, and the store's bytes."""
    folder = scratch("backup")
    writer, reader = open_database(str(folder))
    for first in range(0, len(_ENTRIES), 50):
        group = _ENTRIES[first : first + 50]
        writer.execute("INSERT INTO log VALUES (?, ?, ?)", (first, len(group), pack_entries(group)))
        writer.execute("INSERT INTO record VALUES ('key', ?, 1, ?)", (b"%d" % first, bytes(900)))
    reader.close()
    writer.close()
    text = Checkpoint("o", len(_ENTRIES), root_of([leaf_hash(entry) for entry in _ENTRIES])).body().decode()
    (folder / CHECKPOINT).write_text(f"{text}\n\u2014 o AAAA\n")
    return folder, (folder / FILE).read_bytes()


def run_store(data: bytes) -> None:
    """One edit of the store, of which backup.json tells as if it belonged there:

    page u8 | offset u16 | removed u8 | bytes that come in

    It is damaged, or its log is the one that was signed."""
    if len(data) < 4:
        return
    folder, true = _state()
    at = data[0] * _PAGE % len(true) + int.from_bytes(data[1:3], "big") % _PAGE
    edited = true[:at] + data[4:] + true[at + data[3] :]
    (folder / FILE).write_bytes(edited)
    told = _manifest(edited, (folder / CHECKPOINT).read_bytes(), len(_ENTRIES))
    (folder / manifest.FILE).write_bytes(manifest.encode(told))
    original = SqliteOriginal(str(folder))
    try:
        verify(folder, original)
    except BackupDamaged:
        return
    with original.open(str(folder)) as copy:
        assert [entry for group in copy.groups() for entry in group] == _ENTRIES


TARGETS = (
    Target("backup-manifest", run_manifest, _manifests, (b'"format"', b'"sha256"', b"store.db", b": 1"), 700, 8000),
    Target(
        "backup-store",
        run_store,
        lambda: [b"\0\0\0\0", b"\0\0\x14\1\x08", b"\1\0\0\4abcd", b"\2\x0f\xf8\x08" + bytes(8), b"\3\0\0\xff"],
        (b"\x0d", b"\x0a", b"\x05", bytes(8)),
        32,
        300,
    ),
)
