"""The audit log as a stranger hands it over: checkpoints, bundles, receipts, whole folders.

The daemon's reader and the single-file verifier, which share no line, are each other's oracle."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from functools import cache, lru_cache
from pathlib import Path
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

import openk_tools.audit_verify as verifier
from openk_daemon.audit import checkpoint as notes
from openk_daemon.audit.checkpoint import Checkpoint, CheckpointInvalid
from openk_daemon.audit.edge import Edge
from openk_daemon.audit.entries import Stamp
from openk_daemon.audit.examination import Examination
from openk_daemon.audit.merkle import inclusion_path, leaf_hash, root_of
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.audit.tiles import Tiles, bundle_file, split_bundle, tile_file
from openk_hsm import audit_key
from tests.daemon.audit.logs import KEY, NOTE_KEY, ORIGIN, P256_KEY, memory_with, spki_of
from tests.fuzz.scratch import scratch
from tests.fuzz.target import Target

_STRANGER = verifier.read_public_key(NOTE_KEY.verifier_key(ORIGIN))
"""The audit key as the verifier reads it."""
_ENTRIES = [b'{"number":%d}' % number for number in range(260)]
_verify_signature = lru_cache(maxsize=1024)(verifier.verify_signature)
"""Ed25519 in Python under instrumentation takes 15 ms, and the signatures are mostly the same."""
_HEAD = Checkpoint(ORIGIN, len(_ENTRIES), root_of([leaf_hash(entry) for entry in _ENTRIES]))


def _note(body: str) -> str:
    """`body`, whatever it is, signed by the audit key."""
    signature = KEY.sign(body.encode("utf-8", "surrogatepass") + b"\n")
    return f"{body}\n\n\u2014 {ORIGIN} {b64encode(NOTE_KEY.key_id(ORIGIN) + signature).decode()}\n"


def _quick() -> AbstractContextManager[object]:
    return patch.object(verifier, "verify_signature", _verify_signature)


def run_checkpoint(data: bytes) -> None:
    """What the daemon takes the verifier takes, too, and they see the same. The first byte says whether the rest is a
    note, or a text that the right key has signed."""
    text = data[1:].decode("utf-8", "replace")
    if data[:1] > b"\x7f":
        text = _note(text)
    try:
        found = notes.open_note(text, ORIGIN, NOTE_KEY)
    except CheckpointInvalid:
        found = None
    try:
        with _quick():
            other = verifier.open_checkpoint(text, _STRANGER, ORIGIN)
    except verifier.Bad:
        other = None
    if found is not None:
        assert other is not None
        assert (found.origin, found.size, found.root) == other
        assert text.startswith(found.body().decode())
        assert notes.open_note(_note(found.body().decode()[:-1]), ORIGIN, NOTE_KEY) == found


def _checkpoints() -> Iterator[bytes]:
    text = notes.seal(_HEAD, NOTE_KEY, KEY.sign(_HEAD.body()))
    witnessed = f"{text}\u2014 witness.example {b64encode(bytes(80)).decode()}\n"
    extended = _HEAD.body().decode() + "an extension line"
    yield from (b"\x00" + one.encode() for one in (text, witnessed))
    yield from (b"\xff" + one.encode() for one in (_HEAD.body().decode()[:-1], extended))


def run_signature(data: bytes) -> None:
    """The verifier's ECDSA takes what OpenSSL takes, and nothing else."""
    message = _HEAD.body()
    expected = audit_key.verifies(P256_KEY.public_key(), message, data)
    assert verifier.verify_p256(spki_of(P256_KEY)[-64:], message, data) == expected


def _signatures() -> Iterator[bytes]:
    for message in (_HEAD.body(), b"another"):
        yield P256_KEY.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True))


def run_public_key(data: bytes) -> None:
    """What the verifier takes for an RSA key is one, with the same numbers."""
    try:
        found = verifier._rsa_numbers(data)
    except verifier.Bad:
        return
    key = load_der_public_key(data)
    assert isinstance(key, rsa.RSAPublicKey)
    numbers = key.public_numbers()
    assert (numbers.n, numbers.e) == found


def _public_keys() -> Iterator[bytes]:
    path = Path(__file__).parents[2] / "vectors" / "checkpoints.json"
    yield from sorted({bytes.fromhex(vector["public"]) for vector in json.loads(path.read_text())["vectors"]})


def run_bundle(data: bytes) -> None:
    """Entries that come apart make the same bundle again; the verifier sees them, too."""
    folder = scratch("bundle")
    path = folder / "tile/entries/000"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    seen = verifier._read_entries(str(folder), 0, 256)
    try:
        entries = split_bundle(data)
    except ValueError:
        entries = None
    if entries is not None:
        assert entries[:256] == seen
        assert bundle_file(0, entries).content == data
    try:
        assert Tiles(str(folder)).read_bundle(0, 256) == seen
    except AuditDamaged:
        assert entries is None or len(entries) < 256


def run_receipt(data: bytes) -> None:
    """JSON from outside: verified only with the right root."""
    try:
        with _quick():
            found = verifier.verify_receipt(data.decode("utf-8", "replace"), _STRANGER, None)
    except (verifier.Bad, verifier.Wrong):
        return
    assert found.checkpoint.root == _HEAD.root
    assert found.leaf == leaf_hash(_ENTRIES[found.number])


def _receipts() -> Iterator[bytes]:
    leaves = [leaf_hash(entry) for entry in _ENTRIES]
    text = notes.seal(_HEAD, NOTE_KEY, KEY.sign(_HEAD.body()))
    for index in (0, 100, 259):
        path = inclusion_path(index, len(leaves), lambda begin, end: root_of(leaves[begin:end]))
        yield json.dumps(
            {
                "index": index,
                "size": len(leaves),
                "hashes": [hash_.hex() for hash_ in path],
                "checkpoint": text,
                "entry": _ENTRIES[index].decode(),
            }
        ).encode()


def run_entry(data: bytes) -> None:
    """The clock goes on after the newest entry, or says that it is none."""
    stamp = Stamp(lambda: 0)
    with suppress(ValueError):
        stamp.continue_after(data)
        assert json.loads(stamp.stamp('{"a":1}'))["time"]


@cache
def _log() -> tuple[Path, tuple[Path, ...]]:
    """The folder of a log, and a true copy of its files' contents beside it."""
    true = scratch("log") / "true"
    tiles, edge = Tiles(str(true)), Edge()
    for number, entry in enumerate(_ENTRIES):
        filled = edge.append(leaf_hash(entry))
        tiles.write(tile_file(tile) for tile in filled)
        if filled:
            tiles.write([bundle_file(filled[0].number, _ENTRIES[number - 255 : number + 1])])
    tiles.write(tile_file(tile) for tile in edge.partial_tiles())
    tiles.write([bundle_file(1, _ENTRIES[256:])])
    (true / "checkpoint").write_text(notes.seal(_HEAD, NOTE_KEY, KEY.sign(_HEAD.body())), "utf-8")
    return true, tuple(sorted(path.relative_to(true) for path in true.rglob("*") if path.is_file()))


def run_folder(data: bytes) -> None:
    """One edit somewhere in a published log:

    file u8 | offset u16 | removed u8 | bytes that come in; behind the last file: a file more, of that name

    The verifier names what is wrong, or what it verified is what was signed; where the daemon is content it is, too."""
    if len(data) < 4:
        return
    true, files = _log()
    folder = scratch("log") / "edited"
    if not folder.exists():
        shutil.copytree(true, folder)
    chosen, offset, removed, fresh = data[0] % (len(files) + 1), int.from_bytes(data[1:3], "big"), data[3], data[4:]
    if chosen < len(files):
        edited, content = folder / files[chosen], (true / files[chosen]).read_bytes()
        at = offset % (len(content) + 1)
        edited.write_bytes(content[:at] + fresh + content[at + removed :])
    else:
        name = fresh.decode("utf-8", "replace").replace("/", "").replace("\0", "").strip(".")[:60]
        edited = (folder / files[removed % len(files)]).parent / (name or "x")
        if edited.exists():
            return
        edited.write_bytes(fresh)
    try:
        _compare_readers(folder)
    finally:
        edited.unlink()
        if chosen < len(files):
            shutil.copy(true / files[chosen], edited)


def _compare_readers(folder: Path) -> None:
    content = _is_content(folder)
    try:
        with _quick():
            report = verifier.verify_folder(str(folder), _STRANGER, ORIGIN, indexes=range(len(_ENTRIES)))
    except verifier.Bad as error:
        if content:
            raise AssertionError("the daemon is content with it") from error
        return
    assert report.head == (_HEAD.origin, _HEAD.size, _HEAD.root)
    assert [report.leaves[index] for index in range(len(_ENTRIES))] == [leaf_hash(entry) for entry in _ENTRIES]


def _is_content(folder: Path) -> bool:
    """Whether the daemon, whose own log is as it was, finds nothing."""
    tiles = Tiles(str(folder))
    try:
        text = tiles.read_checkpoint()
        if text is None:
            return False
        head = notes.open_note(text, ORIGIN, NOTE_KEY)
        for _ in Examination(tiles, memory_with(_ENTRIES), head).entries_from(0):
            pass
    except (AuditDamaged, CheckpointInvalid):
        return False
    return True


def _edits() -> Iterator[bytes]:
    _, files = _log()
    for number in range(len(files)):
        yield bytes((number, 0, 40, 1)) + b"?"
        yield bytes((number, 1, 0, 255))
    yield bytes((len(files), 0, 0, 3)) + b"17"
    yield bytes((len(files), 0, 0, 5)) + b"200"


_JSON = (b'"index"', b'"size"', b'"hashes"', b'"entry"', b"null", b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"[[[[")

TARGETS = (
    Target("checkpoint", run_checkpoint, _checkpoints, (ORIGIN.encode(), "\u2014 ".encode(), b"\n\n"), 600, 500),
    Target("note-signature", run_signature, _signatures, (b"\x02\x21\x00", b"\x30\x81"), 80, 100),
    Target("public-key", run_public_key, _public_keys, (b"\x02\x82",), 600, 2000),
    Target("bundle", run_bundle, lambda: [bundle_file(0, _ENTRIES).content, b"\0\1a\0\0"], (b"\0\0",), 6000, 2000),
    Target("receipt", run_receipt, _receipts, _JSON, 1500, 800),
    Target(
        "log-entry", run_entry, lambda: [b'{"time":"2026-01-02T03:04:05.678901Z","a":1}'], (*_JSON, b'"time"'), 4000
    ),
    Target("log-folder", run_folder, _edits, (ORIGIN.encode(), b"\xc2\xb2", b"4"), 64, 150),
)
