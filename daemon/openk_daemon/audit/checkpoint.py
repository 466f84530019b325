"""Checkpoints: the signed head of the log, as text. C2SP tlog-checkpoint in a C2SP signed-note. Pure.

    openk.local/audit                      origin, which is the name of the key too
    1042                                   entries under the signature
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     root hash
                                           (an empty line ends the text that is signed)
    — openk.local/audit Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=

The last base64 is key id (4 bytes) and signature: Ed25519 here. What they are for other audit keys `note_key` draws.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Final

from openk_daemon.audit.note_key import KEY_ID, NoteKey

LARGEST_SIZE: Final = 1 << 62
LONGEST: Final = 4096
"""Bytes of a checkpoint at most; more is not looked at."""


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


def seal(checkpoint: Checkpoint, key: NoteKey, answer: bytes) -> str:
    """The signed note. `answer`: the HSM's (`NoteKey.signature`). Raises CheckpointInvalid when it is not by `key`."""
    note = b64encode(key.key_id(checkpoint.origin) + key.signature(answer)).decode()
    text = f"{checkpoint.body().decode()}\n\u2014 {checkpoint.origin} {note}\n"
    open_note(text, checkpoint.origin, key)
    return text


def open_note(text: str, origin: str, key: NoteKey) -> Checkpoint:
    """The checkpoint in `text`, once its signature by `key` was verified.

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
    wanted = key.key_id(origin)
    for line in signatures[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        name, _, note = rest.partition(" ")
        if dash != "\u2014" or not name or not note:
            raise CheckpointInvalid("the checkpoint has a line that is no signature")
        blob = _decode(note)
        if name == origin and blob[:KEY_ID] == wanted:
            if not key.verifies(signed, blob[KEY_ID:]):
                raise CheckpointInvalid("the checkpoint's signature is not valid")
            return checkpoint
    raise CheckpointInvalid("the checkpoint is not signed by this audit key")


def read_unverified(text: str) -> Checkpoint:
    """The checkpoint in `text`, of whatever log, whoever signed it: for telling, not for trusting. Raises
    CheckpointInvalid."""
    if len(text) > LONGEST:
        raise CheckpointInvalid("the checkpoint is too long")
    body, gap, _ = text.partition("\n\n")
    if not gap:
        raise CheckpointInvalid("the checkpoint is not a signed note")
    return _parse(body, body.partition("\n")[0])


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
