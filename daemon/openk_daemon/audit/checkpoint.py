"""Checkpoints: the signed head of the log, as text. C2SP tlog-checkpoint in a C2SP signed-note. Pure.

    openk.local/audit                      origin, which is the name of the key too
    1042                                   entries under the signature
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     root hash
                                           (an empty line ends the text that is signed)
    — openk.local/audit Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=

The last base64 is key hash (4 bytes) and Ed25519 signature (64); the key hash is the beginning of
SHA-256(name │ 0A │ 01 │ public key).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LARGEST_SIZE: Final = 1 << 62
LONGEST: Final = 4096
"""Bytes of a checkpoint at most; more is not looked at."""
_ED25519: Final = b"\x01"
_SPKI: Final = bytes.fromhex("302a300506032b6570032100")


class CheckpointInvalid(Exception):
    """The text is no checkpoint of this log, or its signature is not by the audit key."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    origin: str
    size: int
    root: bytes

    def body(self) -> bytes:
        """The text that is signed, its last newline included."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n".encode()


def raw_public(public: bytes) -> bytes:
    """The 32 bytes of an Ed25519 key from SubjectPublicKeyInfo DER (RFC 8410) or from themselves."""
    if len(public) == 44 and public.startswith(_SPKI):
        return public[12:]
    if len(public) == 32:
        return public
    raise CheckpointInvalid("the audit key is not an Ed25519 public key")


def key_hash(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """The key as C2SP tools take it (vkey): name, key hash, type and key."""
    return f"{name}+{key_hash(name, public).hex()}+{b64encode(_ED25519 + public).decode()}"


def seal(checkpoint: Checkpoint, public: bytes, signature: bytes) -> str:
    """The signed note. Raises CheckpointInvalid when the signature is not by `public` (32 bytes)."""
    note = b64encode(key_hash(checkpoint.origin, public) + signature).decode()
    text = f"{checkpoint.body().decode()}\n\u2014 {checkpoint.origin} {note}\n"
    open_note(text, checkpoint.origin, public)
    return text


def open_note(text: str, origin: str, public: bytes) -> Checkpoint:
    """The checkpoint in `text`, once its signature by `public` (32 bytes) was verified.

    Signatures of others (witnesses) are allowed and not looked at. Raises CheckpointInvalid."""
    if len(text) > LONGEST:
        raise CheckpointInvalid("the checkpoint is too long")
    body, gap, signatures = text.partition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise CheckpointInvalid("the checkpoint is not a signed note")
    checkpoint = _parse(body, origin)
    try:
        signed = body.encode() + b"\n"
    except UnicodeEncodeError:
        raise CheckpointInvalid("the checkpoint is not text that could be signed") from None
    wanted = key_hash(origin, public)
    for line in signatures[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        name, _, note = rest.partition(" ")
        if dash != "\u2014" or not name or not note:
            raise CheckpointInvalid("the checkpoint has a line that is no signature")
        blob = _decode(note)
        if name == origin and blob[:4] == wanted:
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], signed)
            except InvalidSignature:
                raise CheckpointInvalid("the checkpoint's signature is not valid") from None
            return checkpoint
    raise CheckpointInvalid("the checkpoint is not signed by this audit key")


def _parse(body: str, origin: str) -> Checkpoint:
    lines = body.split("\n")
    if len(lines) < 3 or lines[0] != origin:
        raise CheckpointInvalid(f"the checkpoint is not of the log {origin}")
    size, root = lines[1], _decode(lines[2])
    if not size.isascii() or not size.isdigit() or (size[0] == "0" and size != "0") or len(size) > 19:
        raise CheckpointInvalid("the checkpoint has no size")
    if len(root) != 32 or int(size) > LARGEST_SIZE:
        raise CheckpointInvalid("the checkpoint has no root hash")
    return Checkpoint(origin, int(size), root)


def _decode(text: str) -> bytes:
    try:
        blob = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise CheckpointInvalid("the checkpoint has broken base64") from None
    if b64encode(blob).decode() != text:
        raise CheckpointInvalid("the checkpoint has base64 that is not canonical")
    return blob
