"""Verify an openk audit log without openk: one file, the Python standard library, nothing else.

    python audit_verify.py DIR --public-key FILE|BASE64 [--origin NAME] [--old-checkpoint FILE] [--receipt FILE]

DIR is the published log (C2SP tlog-tiles: `checkpoint`, `tile/...`), the daemon's own or a copy; the daemon may run.
The public key is the audit key (Ed25519, P-256 or RSA): PEM, DER or base64 of SubjectPublicKeyInfo, base64 of the 32
bytes of an Ed25519 key, or a C2SP verifier key (`name+hash+base64`). It must come from somewhere else than DIR.

What is proved: the checkpoint is signed by that key; every entry below it is there, unchanged and in its place; with
`--old-checkpoint` (one you kept) that the log only grew since; with `--receipt` (JSON: index, size, hashes in hex,
checkpoint, entry) that this entry is under the receipt's checkpoint and, with DIR, in the log.

Exit status: 0 verified; 1 not verified, the first bad entry or tile is named; 2 the question itself is wrong.

Formats: RFC 6962 (tree), RFC 8032 (Ed25519), FIPS 186-5 section 6 and RFC 3279 (ECDSA), RFC 8017 (RSA), C2SP
signed-note, tlog-checkpoint and tlog-tiles; RSA keys are named in notes as Sigstore's Rekor names them.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

WIDTH: Final = 256
HASH: Final = 32


class Bad(Exception):
    """The log, a checkpoint or a receipt is not what the audit key signed."""


class Wrong(Exception):
    """The question cannot be answered: a file or a key that cannot be read."""


class PublicKey(NamedTuple):
    """`kind`: one of KINDS. `encoded`: 32 bytes for Ed25519, else SubjectPublicKeyInfo."""

    kind: str
    encoded: bytes

    def key_id(self, name: str) -> bytes:
        """What a note's signature begins with; for P-256 the name is not in it."""
        if self.kind == P256:
            return hashlib.sha256(self.encoded).digest()[:4]
        return hashlib.sha256(name.encode() + b"\n" + KINDS[self.kind] + self.encoded).digest()[:4]


ED25519: Final = "ed25519"
P256: Final = "p-256"
RSA: Final = "rsa"
KINDS: Final = {ED25519: b"\x01", P256: b"\x02", RSA: b"\xffPKIX-RSA-PKCS#1v1.5"}
"""To what a verifier key has before the key."""


def verify_signature(key: PublicKey, message: bytes, signature: bytes) -> bool:
    if key.kind == ED25519:
        return verify_ed25519(key.encoded, message, signature)
    if key.kind == P256:
        return verify_p256(key.encoded[-64:], message, signature)
    return verify_rsa(*_rsa_numbers(key.encoded), message, signature)


# --- Ed25519, RFC 8032 section 5.1: verification only, so nothing here is secret and speed is all that is lost ---

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT: Final = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]


def _recover(encoded: bytes) -> Point:
    """Decode a point (section 5.1.3). Raises Bad."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if y >= _P or (x * x - square) % _P or (x == 0 and sign):
        raise Bad("a point of the signature or key is not on the curve")
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(factor: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            total = _add(total, point)
        point = _add(point, point)
        factor >>= 1
    return total


_BASE: Final = _recover((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Verification (section 5.1.7), without the cofactor, S below the order."""
    if len(public) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= _L:
        return False
    try:
        a, r = _recover(public), _recover(signature[:32])
    except Bad:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    left, right = _multiply(s, _BASE), _add(r, _multiply(k, a))
    return (left[0] * right[2] - right[0] * left[2]) % _P == 0 and (left[1] * right[2] - right[1] * left[2]) % _P == 0


# --- ECDSA on P-256 with SHA-256: FIPS 186-5 section 6.4.2, the curve of SP 800-186 section 3.2.1.3 ---

_Q: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_GENERATOR: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Affine = tuple[int, int] | None
"""A point of the curve; None is the point at infinity."""


def _on_curve(point: tuple[int, int]) -> bool:
    x, y = point
    return x < _Q and y < _Q and (y * y - (x * x - 3) * x - _B) % _Q == 0


def _plus(left: Affine, right: Affine) -> Affine:
    if left is None or right is None:
        return left or right
    (x, y), (u, v) = left, right
    if x == u:
        if (y + v) % _Q == 0:
            return None
        slope = (3 * x * x - 3) * pow(2 * y, -1, _Q) % _Q
    else:
        slope = (v - y) * pow(u - x, -1, _Q) % _Q
    third = (slope * slope - x - u) % _Q
    return third, (slope * (x - third) - y) % _Q


def _times(factor: int, point: Affine) -> Affine:
    total: Affine = None
    while factor:
        if factor & 1:
            total = _plus(total, point)
        point = _plus(point, point)
        factor >>= 1
    return total


def verify_p256(public: bytes, message: bytes, signature: bytes) -> bool:
    """`public`: x and y, 32 bytes each. `signature`: DER, SEQUENCE { INTEGER r, INTEGER s }, in its one form."""
    key = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
    try:
        r, s = _der_integers(signature)
    except Bad:
        return False
    if len(public) != 64 or not (_on_curve(key) and 0 < r < _N and 0 < s < _N):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, _N)
    point = _plus(_times(digest * inverse % _N, _GENERATOR), _times(r * inverse % _N, key))
    return point is not None and point[0] % _N == r


# --- RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017 section 8.2.2 ---

_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")


def verify_rsa(modulus: int, exponent: int, message: bytes, signature: bytes) -> bool:
    size = (modulus.bit_length() + 7) // 8
    number = int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus:
        return False
    tail = b"\x00" + _DIGEST_INFO + hashlib.sha256(message).digest()
    wanted = b"\x00\x01" + b"\xff" * (size - 2 - len(tail)) + tail
    return pow(number, exponent, modulus).to_bytes(size, "big") == wanted


def _rsa_numbers(spki: bytes) -> tuple[int, int]:
    """Modulus (2048 to 16384 bits) and exponent. Raises Bad."""
    info, rest = _der(spki, 0x30)
    algorithm, key = _der(info, 0x30)
    bits, more = _der(key, 0x03)
    if rest or more or algorithm != bytes.fromhex("06092a864886f70d0101010500") or bits[:1] != b"\x00":
        raise Bad("this is no RSA public key")
    modulus, exponent = _der_integers(bits[1:])
    if not (2048 <= modulus.bit_length() <= 16384 and modulus & 1 and 2 < exponent < 1 << 32 and exponent & 1):
        raise Bad("no RSA key has such numbers")
    return modulus, exponent


# --- DER, X.690 section 10: each value has one form, and no other is read ---


def _der(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first value, which must have that tag, and what follows it. Raises Bad."""
    if len(data) < 2 or data[0] != tag:
        raise Bad("a value of another kind was expected")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
        if size < 0x80 or data[2] == 0:
            raise Bad("a length is not in its shortest form")
    if len(data) < start + size:
        raise Bad("a value is cut short")
    return data[start : start + size], data[start + size :]


def _der_integers(data: bytes) -> tuple[int, int]:
    """The two numbers, 0 or more, of a SEQUENCE { INTEGER, INTEGER } and nothing behind. Raises Bad."""
    body, rest = _der(data, 0x30)
    first, body = _der(body, 0x02)
    second, body = _der(body, 0x02)
    for number in (first, second):
        if not number or number[0] & 0x80 or (number[0] == 0 and len(number) > 1 and not number[1] & 0x80):
            raise Bad("a number is negative or not in its shortest form")
    if rest or body:
        raise Bad("something follows the second number")
    return int.from_bytes(first, "big"), int.from_bytes(second, "big")


# --- RFC 6962 section 2.1 ---


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Range:
    """A growing tree as its perfect subtrees, the largest first; one hash for each bit of its size."""

    def __init__(self) -> None:
        self.size = 0
        self.perfect: list[bytes] = []

    def append(self, hash_: bytes) -> None:
        size = self.size
        while size & 1:
            hash_ = node_hash(self.perfect.pop(), hash_)
            size >>= 1
        self.perfect.append(hash_)
        self.size += 1

    def root(self) -> bytes:
        if not self.perfect:
            return hashlib.sha256(b"").digest()
        root = self.perfect[-1]
        for left in reversed(self.perfect[:-1]):
            root = node_hash(left, root)
        return root


def tile_root(hashes: Sequence[bytes]) -> bytes:
    tree = Range()
    for hash_ in hashes:
        tree.append(hash_)
    return tree.root()


def inclusion_root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that `path` leads to (RFC 9162 section 2.1.3.2); None when it does not fit index and size."""
    if not 0 <= index < size:
        return None
    at, last = index, size - 1
    for step in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            leaf = node_hash(step, leaf)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            leaf = node_hash(leaf, step)
        at, last = at >> 1, last >> 1
    return leaf if last == 0 else None


# --- checkpoints ---


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes


def open_checkpoint(text: str, public: PublicKey, origin: str | None) -> Checkpoint:
    """Verify the signature by `public` and parse. Raises Bad."""
    body, gap, signatures = text.partition("\n\n")
    lines = body.split("\n")
    if not gap or not signatures.endswith("\n") or len(lines) < 3:
        raise Bad("the checkpoint is not a signed note")
    if origin is not None and lines[0] != origin:
        raise Bad(f"the checkpoint is of the log {lines[0]!r}, not of {origin!r}")
    name = lines[0]
    wanted = public.key_id(name)
    for line in signatures[:-1].split("\n"):
        parts = line.split(" ")
        blob = _unbase64(parts[2]) if len(parts) == 3 and parts[0] == "\u2014" else b""
        if blob[:4] == wanted and parts[1] == name and verify_signature(public, body.encode() + b"\n", blob[4:]):
            break
    else:
        raise Bad("the checkpoint has no valid signature by this public key")
    root = _unbase64(lines[2])
    if not (lines[1].isascii() and lines[1].isdigit() and len(lines[1]) < 20) or len(root) != HASH:
        raise Bad("the checkpoint has no size or no root hash")
    return Checkpoint(name, int(lines[1]), root)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def read_public_key(given: str) -> PublicKey:
    """The audit key, from a file or from the argument itself. Raises Wrong."""
    content = given.encode()
    if os.path.isfile(given):
        with open(given, "rb") as file:
            content = file.read(8192)
    for blob in (content, *_texts(content)):
        typed = next((blob[len(type_) :] for type_ in KINDS.values() if blob.startswith(type_)), b"")
        for candidate in (blob, typed):
            key = _public_key(candidate)
            if key is not None:
                return key
    raise Wrong(f"{given} is neither a file with an Ed25519, P-256 or RSA public key nor one in base64")


def _public_key(encoded: bytes) -> PublicKey | None:
    """From 32 bytes or SubjectPublicKeyInfo; None for anything else."""
    if len(encoded) == 44 and encoded.startswith(bytes.fromhex("302a300506032b6570032100")):
        return PublicKey(ED25519, encoded[12:])
    if len(encoded) == 32:
        return PublicKey(ED25519, encoded)
    prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
    if len(encoded) == len(prefix) + 64 and encoded.startswith(prefix):
        point = int.from_bytes(encoded[-64:-32], "big"), int.from_bytes(encoded[-32:], "big")
        return PublicKey(P256, encoded) if _on_curve(point) else None
    try:
        _rsa_numbers(encoded)
    except Bad:
        return None
    return PublicKey(RSA, encoded)


def _texts(content: bytes) -> Iterator[bytes]:
    text = content.decode("ascii", "replace").strip()
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("-----")]
    yield _unbase64("".join(lines))
    yield _unbase64(text.split("+", 2)[2] if text.count("+") > 1 else "")


# --- the published log ---


def _number(number: int) -> str:
    path = f"{number % 1000:03}"
    while number := number // 1000:
        path = f"x{number % 1000:03}/{path}"
    return path


def _name(level: int | str, number: int, width: int) -> str:
    return f"tile/{level}/{_number(number)}" + ("" if width == WIDTH else f".p/{width}")


def _read_tile(folder: str, level: int | str, number: int, width: int) -> bytes:
    """The tile, or a wider one that contains it: the daemon drops narrow ones as it goes on. Raises Bad."""
    exact = os.path.join(folder, _name(level, number, width))
    full = os.path.join(folder, _name(level, number, WIDTH))
    parent = os.path.dirname(exact)
    wider = [os.path.join(parent, str(more)) for more in range(width + 1, WIDTH)]
    for path in (exact, full, *wider):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read()
    raise Bad(f"{_name(level, number, width)} is missing")


def _read_hashes(folder: str, level: int, number: int, width: int) -> list[bytes]:
    content = _read_tile(folder, level, number, width)
    if len(content) < width * HASH:
        raise Bad(f"{_name(level, number, width)} is cut short")
    return [content[at : at + HASH] for at in range(0, width * HASH, HASH)]


def _read_entries(folder: str, number: int, width: int) -> list[bytes]:
    """Up to `width` entries: fewer when the file ends early or inside one."""
    content = _read_tile(folder, "entries", number, width)
    entries: list[bytes] = []
    at = 0
    while len(entries) < width and at + 2 <= len(content):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        if end > len(content):
            break
        entries.append(content[at + 2 : end])
        at = end
    return entries


def _widths(size: int, level: int) -> Iterator[tuple[int, int]]:
    """Number and width of each tile of a level in a tree of `size`."""
    full, rest = divmod(size >> (8 * level), WIDTH)
    for number in range(full):
        yield number, WIDTH
    if rest:
        yield full, rest


class Report(NamedTuple):
    """The verified head, and what was asked for: roots by size, leaf hashes by index."""

    head: Checkpoint
    roots: dict[int, bytes]
    leaves: dict[int, bytes]


def verify_folder(
    folder: str, public: PublicKey, origin: str | None = None, sizes: Sequence[int] = (), indexes: Sequence[int] = ()
) -> Report:
    """Verify the whole log in `folder`. Raises Bad, naming the first thing that is, and Wrong.

    `sizes`, `indexes`: trees and leaves whose hashes the caller wants, where they are in the log."""
    checkpoint = _load_checkpoint(folder, public, origin)
    tree = Range()
    report = Report(checkpoint, {0: tree.root()}, {})
    suspect: str | None = None
    for number, width in _widths(checkpoint.size, 0):
        entries = _read_entries(folder, number, width)
        hashes = _read_hashes(folder, 0, number, width)
        for index, hash_ in enumerate(hashes, number * WIDTH):
            at = index - number * WIDTH
            if at >= len(entries):
                raise Bad(suspect or f"entry {index} is missing: the log is cut short there")
            leaf = leaf_hash(entries[at])
            if leaf != hash_ and suspect is None:
                suspect = f"entry {index} was changed, moved or removed"
            tree.append(leaf)
            if index in indexes:
                report.leaves[index] = leaf
            if tree.size in sizes:
                report.roots[tree.size] = tree.root()
    if tree.root() == checkpoint.root:
        if suspect is not None:
            raise Bad(f"{suspect.split(' was ')[0]} is as it was signed, but its hash in tile/0 was changed")
        _verify_upper_tiles(folder, checkpoint.size)
        return report
    _verify_upper_tiles(folder, checkpoint.size)
    raise Bad(suspect or "entries and tiles are in harmony, but they are not what the checkpoint signs")


def _load_checkpoint(folder: str, public: PublicKey, origin: str | None) -> Checkpoint:
    if not os.path.isdir(folder):
        raise Wrong(f"{folder} is not a folder")
    path = os.path.join(folder, "checkpoint")
    if not os.path.isfile(path):
        raise Bad("the file `checkpoint` is missing")
    with open(path, encoding="utf-8", errors="replace") as file:
        return open_checkpoint(file.read(8192), public, origin)


def _verify_upper_tiles(folder: str, size: int) -> None:
    """Each hash of a tile above level 0 is the root of the full tile below it."""
    level = 1
    while size >> (8 * level):
        for number, width in _widths(size, level):
            for at, hash_ in enumerate(_read_hashes(folder, level, number, width)):
                below = number * WIDTH + at
                if tile_root(_read_hashes(folder, level - 1, below, WIDTH)) != hash_:
                    first = below * WIDTH**level
                    raise Bad(
                        f"{_name(level - 1, below, WIDTH)} or hash {at} of {_name(level, number, width)} was changed "
                        f"(entries {first} to {first + WIDTH**level - 1} are below it)"
                    )
        level += 1


# --- receipts and old checkpoints ---


class Receipt(NamedTuple):
    number: int
    leaf: bytes
    checkpoint: Checkpoint


def verify_receipt(text: str, public: PublicKey, origin: str | None) -> Receipt:
    """An inclusion proof of one entry, on its own. Raises Bad, Wrong."""
    try:
        given: Any = json.loads(text)  # Any: JSON from outside, checked by use in the next lines
        index, size = int(given["index"]), int(given["size"])
        path = [bytes.fromhex(hash_) for hash_ in given["hashes"]]
        leaf = leaf_hash(str(given["entry"]).encode())
        note = str(given["checkpoint"])
        note.encode()
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Wrong("the receipt is not JSON with index, size, hashes, checkpoint and entry") from error
    checkpoint = open_checkpoint(note, public, origin)
    if checkpoint.size != size or inclusion_root(leaf, index, size, path) != checkpoint.root:
        raise Bad(f"the receipt does not prove that its entry is number {index} of the log")
    return Receipt(index, leaf, checkpoint)


def verify(arguments: argparse.Namespace) -> dict[str, object]:
    """Everything that was asked on the command line. Raises Bad, Wrong."""
    public = read_public_key(arguments.public_key)
    origin: str | None = arguments.origin
    facts: dict[str, object] = {}
    olds: list[tuple[str, Checkpoint]] = []
    receipt: Receipt | None = None
    if arguments.old_checkpoint:
        olds.append(("the old checkpoint", open_checkpoint(_read_text(arguments.old_checkpoint), public, origin)))
        facts["old_size"] = olds[0][1].size
    if arguments.receipt:
        receipt = verify_receipt(_read_text(arguments.receipt), public, origin)
        olds.append(("the receipt's checkpoint", receipt.checkpoint))
        facts["receipt_index"] = receipt.number
    if arguments.folder is None:
        return facts
    wanted = [receipt.number] if receipt is not None else []
    report = verify_folder(arguments.folder, public, origin, [old.size for _, old in olds], wanted)
    for what, old in olds:
        if old.origin != report.head.origin:
            raise Bad(f"{what} is of another log: {old.origin}")
        if old.size > report.head.size:
            raise Bad(f"the log was rolled back: {what} signs {old.size} entries, {report.head.size} are here")
        if report.roots[old.size] != old.root:
            raise Bad(f"history was rewritten: the first {old.size} entries are not those that {what} signs")
    if receipt is not None and report.leaves.get(receipt.number) != receipt.leaf:
        raise Bad(f"entry {receipt.number} of the log is not the receipt's")
    return {"origin": report.head.origin, "size": report.head.size, "root": report.head.root.hex(), **facts}


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except (OSError, UnicodeDecodeError) as error:
        raise Wrong(f"{path} cannot be read") from error


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Verify an openk audit log without openk.")
    parser.add_argument("folder", metavar="DIR", nargs="?", help="the published log: checkpoint and tile/")
    parser.add_argument("--public-key", required=True, metavar="FILE|BASE64", help="the audit key, from a safe place")
    parser.add_argument("--origin", metavar="NAME", help="the log's name, as its checkpoints must have it")
    parser.add_argument("--old-checkpoint", metavar="FILE", help="prove that the log only grew since this one")
    parser.add_argument("--receipt", metavar="FILE", help="an entry with its inclusion proof, as JSON")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    arguments = parser.parse_args(argv)
    if arguments.folder is None and arguments.receipt is None:
        parser.error("give DIR, or --receipt, or both")
    try:
        facts = verify(arguments)
    except (Bad, Wrong) as error:
        plain = f"NOT VERIFIED: {error}"
        print(json.dumps({"verified": False, "reason": str(error)}) if arguments.json else plain)
        return 1 if isinstance(error, Bad) else 2
    plain = "verified: " + ", ".join(f"{name} {value}" for name, value in facts.items())
    print(json.dumps({"verified": True, **facts}) if arguments.json else plain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
