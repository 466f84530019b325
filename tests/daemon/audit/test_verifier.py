"""The single-file verifier, run as strangers run it: isolated, away from the repository, on what the daemon wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

import openk_tools.audit_verify as verifier
from openk_daemon.audit.checkpoint import Checkpoint, seal
from openk_daemon.audit.edge import Edge
from openk_daemon.audit.merkle import inclusion_path, leaf_hash, root_of
from openk_daemon.audit.tiles import Tiles, bundle_file, split_bundle, tile_file, tile_path
from openk_daemon.store.memory import MemoryStore
from tests.daemon.audit.logs import (
    KEY,
    KINDS,
    NOTE_KEY,
    ORIGIN,
    PrivateKey,
    Signer,
    answer_of,
    note_key_of,
    run_ledger,
    spki_of,
)
from tests.daemon.store.answers import answer

SIZE = 600
RAW = KEY.public_key().public_bytes_raw()
KEY_TEXT = b64encode(RAW).decode()
PUBLIC = verifier.read_public_key(KEY_TEXT)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 600 entries, in three growths, as the daemon publishes it; heads and a receipt beside it."""
    folder = tmp_path_factory.mktemp("published")

    async def publish() -> None:
        store = MemoryStore()
        async with run_ledger(store, str(folder / "log")) as running:
            for count in (10, 300, SIZE - 310):
                await running.fill(count)
                head = await running.head()
                (folder / f"head-{head.signed_size}").write_text(head.checkpoint, encoding="utf-8")
            proof = await running.prove(400)
            entry = (await answer(running.ledger.tail(400, 1)))[0]
            receipt = {
                "index": 400,
                "size": proof.size,
                "hashes": [hash_.hex() for hash_ in proof.hashes],
                "checkpoint": proof.checkpoint,
                "entry": entry,
            }
            (folder / "receipt").write_text(json.dumps(receipt), encoding="utf-8")

    trio.run(publish)
    return folder


@pytest.fixture
def log(published: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    shutil.copytree(published / "log", tmp_path / "log")
    return tmp_path / "log"


def verify(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    status = verifier.main([*map(str, arguments), "--public-key", KEY_TEXT])
    return status, capsys.readouterr().out


def test_a_true_log_is_verified_by_the_file_alone(published: Path, tmp_path: Path) -> None:
    """-I and -S: no site-packages, no environment, no working folder; so it cannot import anything of openk."""
    alone = tmp_path / "audit verify.py"
    shutil.copy(verifier.__file__, alone)
    command = [sys.executable, "-I", "-S", str(alone), str(published / "log"), "--public-key", KEY_TEXT, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    found = json.loads(run.stdout)
    assert found["verified"] is True
    assert (found["origin"], found["size"]) == (ORIGIN, SIZE)


def change_bundle(log: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Edit the entries of the whole log as one list, and write them back into their bundles."""
    paths = [log / "tile/entries/000", log / "tile/entries/001", log / f"tile/entries/002.p/{SIZE - 512}"]
    entries = edit([entry for path in paths for entry in split_bundle(path.read_bytes())])
    for number, path in enumerate(paths):
        path.write_bytes(bundle_file(0, entries[number * 256 : (number + 1) * 256]).content)


def flip(entry: bytes) -> bytes:
    return entry[:-1] + bytes((entry[-1] ^ 1,))


EDITS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "flip": lambda entries, at: [*entries[:at], flip(entries[at]), *entries[at + 1 :]],
    "delete": lambda entries, at: [*entries[:at], *entries[at + 1 :]],
    "insert": lambda entries, at: [*entries[:at], b'{"forged":1}', *entries[at:]],
    "reorder": lambda entries, at: [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]],
    "truncate": lambda entries, at: entries[:at],
}


@pytest.mark.parametrize("edit", list(EDITS))
@pytest.mark.parametrize("at", [0, 1, 17, 254, 255, 256, 300, 511, 512, SIZE - 2])
def test_the_first_bad_entry_is_named(log: Path, capsys: pytest.CaptureFixture[str], edit: str, at: int) -> None:
    change_bundle(log, lambda entries: EDITS[edit](entries, at))
    status, said = verify(capsys, log)
    assert status == 1
    assert f"NOT VERIFIED: entry {at} " in said


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(EDITS)), st.integers(0, SIZE - 2))
def test_the_first_bad_entry_is_named_wherever_it_is(published: Path, edit: str, at: int) -> None:
    log = published.parent / "spoilt"
    shutil.rmtree(log, ignore_errors=True)
    shutil.copytree(published / "log", log)
    change_bundle(log, lambda entries: EDITS[edit](entries, at))
    with pytest.raises(verifier.Bad, match=rf"^entry {at} "):
        verifier.verify_folder(str(log), PUBLIC)


@pytest.mark.parametrize("tile", ["0/000", "0/001", f"0/002.p/{SIZE - 512}", "1/000.p/2", "entries/001"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_bad_tile_is_named(log: Path, capsys: pytest.CaptureFixture[str], tile: str, harm: str) -> None:
    path = log / "tile" / tile
    content = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:35] + flip(content[35:36]) + content[36:] if harm == "flip" else content[:-40])
    status, said = verify(capsys, log)
    assert status == 1
    assert f"tile/{tile}" in said or "entry" in said
    if harm == "remove":
        assert f"tile/{tile} is missing" in said


def test_an_entry_changed_together_with_its_hash_is_found_from_above(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_bundle(log, lambda entries: EDITS["flip"](entries, 100))
    entries = split_bundle((log / "tile/entries/000").read_bytes())
    (log / "tile/0/000").write_bytes(b"".join(map(leaf_hash, entries)))
    status, said = verify(capsys, log)
    assert status == 1
    assert "tile/0/000" in said
    assert "entries 0 to 255" in said


def forge(folder: Path, key: PrivateKey, entries: list[bytes], origin: str = ORIGIN) -> None:
    """Publish another log, of the same name or of another."""
    tiles, edge = Tiles(str(folder)), Edge()
    for number, entry in enumerate(entries):
        filled = edge.append(leaf_hash(entry))
        tiles.write(tile_file(tile) for tile in filled)
        if filled:
            tiles.write([bundle_file(filled[0].number, entries[number - 255 : number + 1])])
    tiles.write(tile_file(tile) for tile in edge.partial_tiles())
    if len(entries) % 256:
        tiles.write([bundle_file(len(entries) // 256, entries[len(entries) // 256 * 256 :])])
    checkpoint = Checkpoint(origin, len(entries), edge.root())
    text = seal(checkpoint, note_key_of(key), answer_of(key, checkpoint.body()))
    (folder / "checkpoint").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("other", [Ed25519PrivateKey.generate, KINDS["p-256"], KINDS["rsa-3072"]])
def test_a_log_by_another_key_is_not_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: Callable[[], PrivateKey]
) -> None:
    forge(tmp_path, other(), [b"{}"])
    status, said = verify(capsys, tmp_path)
    assert status == 1
    assert "no valid signature by this public key" in said


@pytest.mark.parametrize("kind", KINDS)
def test_logs_of_every_audit_key_are_verified_as_strangers_do(tmp_path: Path, kind: str) -> None:
    """Isolated, without site-packages: nothing but the file and Python."""
    key = KINDS[kind]()
    forge(tmp_path / "log", key, [b"{}"] * 3)
    (tmp_path / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    shutil.copy(verifier.__file__, tmp_path / "audit_verify.py")
    command = [sys.executable, "-I", "-S", "audit_verify.py", "log", "--public-key", "key.pem"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"verified: origin {ORIGIN}, size 3, ")
    with (tmp_path / "log/checkpoint").open("r+b") as file:
        file.seek(len(ORIGIN) + 1)
        file.write(b"4")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, "no valid signature by this public key" in done.stdout) == (1, True)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 513])
def test_logs_of_all_shapes_are_verified(tmp_path: Path, size: int) -> None:
    forge(tmp_path, KEY, [b"%d" % number for number in range(size)])
    assert verifier.verify_folder(str(tmp_path), PUBLIC).head.size == size


def test_old_heads_show_growth_rollback_and_rewriting(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in (10, 310, SIZE):
        status, said = verify(capsys, published / "log", "--old-checkpoint", published / f"head-{size}", "--json")
        assert status == 0
        assert json.loads(said)["old_size"] == size
    entries = [
        entry
        for name in ("000", "001", f"002.p/{SIZE - 512}")
        for entry in split_bundle((published / "log/tile/entries" / name).read_bytes())
    ]
    forge(tmp_path / "short", KEY, entries[:500])
    status, said = verify(capsys, tmp_path / "short", "--old-checkpoint", published / f"head-{SIZE}")
    assert (status, "rolled back" in said) == (1, True)
    forge(tmp_path / "other", KEY, EDITS["flip"](entries, 309))
    assert verify(capsys, tmp_path / "other", "--old-checkpoint", published / "head-10")[0] == 0
    status, said = verify(capsys, tmp_path / "other", "--old-checkpoint", published / "head-310")
    assert (status, "history was rewritten" in said) == (1, True)


def test_a_receipt_is_verified_alone_and_against_the_log(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = published / "receipt"
    assert verify(capsys, "--receipt", receipt)[0] == 0
    assert verify(capsys, published / "log", "--receipt", receipt)[0] == 0
    given = json.loads(receipt.read_text(encoding="utf-8"))
    changes: list[dict[str, object]] = [
        {"entry": given["entry"] + " "},
        {"index": 401},
        {"size": SIZE - 1},
        {"hashes": given["hashes"][1:]},
        {"checkpoint": given["checkpoint"].replace("600", "601")},
    ]
    for change in changes:
        (tmp_path / "receipt").write_text(json.dumps({**given, **change}), encoding="utf-8")
        assert verify(capsys, "--receipt", tmp_path / "receipt")[0] == 1, change
    forge(tmp_path / "log", KEY, [b"{}"] * SIZE)
    status, said = verify(capsys, tmp_path / "log", "--receipt", receipt)
    assert (status, "rewritten" in said) == (1, True)


STRANGE = [
    json.dumps({"index": 0, "size": 1, "hashes": [], "entry": "{}", "checkpoint": "a"} | change)
    for change in ({"index": float("inf")}, {"entry": "\ud800"}, {"checkpoint": "\ud800\n1\na\n\n\u2014 a b\n"})
]
"""Receipts whose JSON is well formed."""


@pytest.mark.parametrize("size", [*range(1, 18), 31, 32, 33, 255, 257])
def test_a_path_proves_its_entry_and_no_other(size: int) -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(size)]
    root = root_of(hashes)
    for index in {*range(min(size, 18)), size // 2, size - 1}:
        path = inclusion_path(index, size, lambda begin, end: root_of(hashes[begin:end]))
        assert verifier.inclusion_root(hashes[index], index, size, path) == root
        for wrong in {-1, index - 1, index + 1, size} - {index}:
            assert verifier.inclusion_root(hashes[index], wrong, size, path) != root
        assert verifier.inclusion_root(hashes[index], index, size, (*path, root)) is None
        if path:
            assert verifier.inclusion_root(hashes[index], index, size, path[:-1]) is None
    for outside in (-1, size, size + 1):
        assert verifier.inclusion_root(root, outside, size, ()) is None


@given(st.sampled_from([0, 1, 5, "entries"]), st.integers(0, 1 << 40), st.integers(1, 256))
def test_tiles_have_the_names_that_the_daemon_gives_them(level: int | str, number: int, width: int) -> None:
    assert verifier._name(level, number, width) == tile_path(level, number, width)
    assert verifier._name(0, 1234067, 256) == "tile/0/x001/x234/067"


def test_a_key_in_base64_may_be_broken_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY_TEXT[:20]}\n  {KEY_TEXT[20:]}\n")
    assert verifier.read_public_key(str(path)) == PUBLIC


def test_the_answer_says_what_was_verified(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (published / "log", "--old-checkpoint", published / "head-310", "--receipt", published / "receipt")
    lines = (published / f"head-{SIZE}").read_text(encoding="utf-8").splitlines()
    root = b64decode(lines[2]).hex()
    status, said = verify(capsys, *asked, "--json")
    assert (status, json.loads(said)) == (
        0,
        {"verified": True, "origin": ORIGIN, "size": SIZE, "root": root, "old_size": 310, "receipt_index": 400},
    )
    status, said = verify(capsys, *asked)
    assert said == f"verified: origin {ORIGIN}, size {SIZE}, root {root}, old_size 310, receipt_index 400\n"
    status, said = verify(capsys, published / "log", "--origin", "another", "--json")
    assert (status, json.loads(said)) == (
        1,
        {"verified": False, "reason": f"the checkpoint is of the log '{ORIGIN}', not of 'another'"},
    )


def test_the_origin_is_demanded_of_everything_that_is_shown(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same key signs for another log: what is of that one proves nothing about this one."""
    forge(tmp_path, KEY, [b"{}"], origin="other.test/audit")
    old = tmp_path / "checkpoint"
    status, said = verify(capsys, published / "log", "--old-checkpoint", old)
    assert (status, "the old checkpoint is of another log: other.test/audit" in said) == (1, True)
    status, said = verify(capsys, published / "log", "--old-checkpoint", old, "--origin", ORIGIN)
    assert (status, "the checkpoint is of the log 'other.test/audit'" in said) == (1, True)
    receipt = {
        "index": 0, "size": 1, "hashes": [], "checkpoint": old.read_text(encoding="utf-8"), "entry": "{}",
    }  # fmt: skip
    (tmp_path / "receipt").write_text(json.dumps(receipt), encoding="utf-8")
    assert verify(capsys, "--receipt", tmp_path / "receipt")[0] == 0
    assert verify(capsys, "--receipt", tmp_path / "receipt", "--origin", ORIGIN)[0] == 1
    status, said = verify(capsys, published / "log", "--receipt", tmp_path / "receipt")
    assert (status, "the receipt's checkpoint is of another log" in said) == (1, True)


@pytest.mark.parametrize("content", ["", "[]", "7", '{"index":"x"}', "\udcff", "[" * 65_000, *STRANGE])
def test_a_question_that_is_none_has_its_own_exit_status(tmp_path: Path, content: str) -> None:
    (tmp_path / "receipt").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert verifier.main(["--receipt", str(tmp_path / "receipt"), "--public-key", KEY_TEXT]) == 2
    assert verifier.main([str(tmp_path / "nowhere"), "--public-key", KEY_TEXT]) == 2
    assert verifier.main([str(tmp_path), "--public-key", "nonsense"]) == 2
    assert verifier.main([str(tmp_path), "--public-key", KEY_TEXT]) == 1, "a folder without a checkpoint is a bad log"
    with pytest.raises(SystemExit) as stopped:
        verifier.main(["--public-key", KEY_TEXT])
    assert stopped.value.code == 2


def test_the_key_is_taken_in_every_usual_form(published: Path, tmp_path: Path) -> None:
    der, vkey = spki_of(KEY), NOTE_KEY.verifier_key(ORIGIN)
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for number, content in enumerate((der, pem, RAW, KEY_TEXT.encode() + b"\n", vkey.encode())):
        path = tmp_path / f"key {number}"
        path.write_bytes(content)
        assert verifier.read_public_key(str(path)) == PUBLIC
    for text in (b64encode(der).decode(), KEY_TEXT, vkey):
        assert verifier.read_public_key(text) == PUBLIC


def test_the_origin_can_be_demanded(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(capsys, published / "log", "--origin", ORIGIN)[0] == 0
    assert verify(capsys, published / "log", "--origin", "another")[0] == 1


async def test_a_log_that_grows_meanwhile_is_verified_as_of_its_checkpoint(tmp_path: Path) -> None:
    """A copy may hold the checkpoint of one moment and the wider tiles of a later one."""
    async with run_ledger(MemoryStore(), str(tmp_path), signer=Signer()) as running:
        await running.fill(300)
        old = (await running.head()).checkpoint
        for count in (5, 300, 5):
            await running.fill(count)
            await running.head()
    (tmp_path / "checkpoint").write_text(old, encoding="utf-8")
    assert verifier.verify_folder(str(tmp_path), PUBLIC).head.size == 300


# RFC 8032 section 7.1: TEST 1, 2, 3
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_ed25519_agrees_with_the_rfc(public: str, message: str, signature: str) -> None:
    given = (bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))
    assert verifier.verify_ed25519(*given)
    assert not verifier.verify_ed25519(given[0], given[1] + b"\x00", given[2])


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.integers(0, 511))
def test_ed25519_agrees_with_cryptography(seed: bytes, message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert verifier.verify_ed25519(public, message, signature)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not verifier.verify_ed25519(public, message, bytes(flipped))


@given(st.binary(min_size=30, max_size=33), st.binary(min_size=63, max_size=65))
def test_any_bytes_as_key_and_signature_are_refused(public: bytes, signature: bytes) -> None:
    assert not verifier.verify_ed25519(public, b"message", signature)


def test_a_signature_has_one_form_only() -> None:
    signature = KEY.sign(b"message")
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    assert verifier.verify_ed25519(RAW, b"message", signature)
    assert not verifier.verify_ed25519(RAW, b"message", signature[:32] + s.to_bytes(32, "little"))


def test_a_strange_name_beside_a_tile_does_no_harm(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (log / f"tile/0/002.p/{SIZE - 512}").rename(log / "tile/0/002.p/\u00b2\u00b3")
    status, said = verify(capsys, log)
    assert (status, f"tile/0/002.p/{SIZE - 512} is missing" in said) == (1, True)
