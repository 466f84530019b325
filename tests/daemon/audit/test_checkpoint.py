"""Checkpoints as text: published vectors, and texts that are none."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.audit.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    key_hash,
    open_note,
    raw_public,
    seal,
    verifier_key,
)
from tests.daemon.audit.logs import KEY, ORIGIN, PUBLIC

# From the documentation of golang.org/x/mod/sumdb/note, where the format comes from.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def sealed(size: int = 7) -> str:
    checkpoint = Checkpoint(ORIGIN, size, bytes(range(32)))
    return seal(checkpoint, PUBLIC, KEY.sign(checkpoint.body()))


def test_keys_and_signatures_are_those_of_the_published_note() -> None:
    public = b64decode(NEUMANN.split("+", 2)[2])[1:]
    assert verifier_key("PeterNeumann", public) == NEUMANN
    blob = b64decode(NEUMANN_SIGNATURE)
    assert blob[:4] == key_hash("PeterNeumann", public)
    Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], NEUMANN_NOTE)


@given(st.integers(0, 1 << 62), st.binary(min_size=32, max_size=32))
def test_a_sealed_checkpoint_opens(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    text = seal(checkpoint, PUBLIC, KEY.sign(checkpoint.body()))
    assert open_note(text, ORIGIN, PUBLIC) == checkpoint
    assert text.split("\n")[:2] == [ORIGIN, str(size)]


def test_lines_for_extensions_and_signatures_of_witnesses_are_let_through() -> None:
    body = f"{ORIGIN}\n7\n{b64encode(bytes(32)).decode()}\nan extension\n"
    signature = b64encode(key_hash(ORIGIN, PUBLIC) + KEY.sign(body.encode())).decode()
    witness = b64encode(b"abcd" + bytes(72)).decode()
    text = f"{body}\n\u2014 witness.example {witness}\n\u2014 {ORIGIN} {signature}\n"
    assert open_note(text, ORIGIN, PUBLIC).size == 7


def test_a_signature_by_another_key_does_not_seal() -> None:
    checkpoint = Checkpoint(ORIGIN, 1, bytes(32))
    other = Ed25519PrivateKey.generate()
    with pytest.raises(CheckpointInvalid):
        seal(checkpoint, PUBLIC, other.sign(checkpoint.body()))
    text = seal(checkpoint, other.public_key().public_bytes_raw(), other.sign(checkpoint.body()))
    with pytest.raises(CheckpointInvalid, match="not signed by this audit key"):
        open_note(text, ORIGIN, PUBLIC)


def test_a_checkpoint_of_another_log_does_not_open() -> None:
    with pytest.raises(CheckpointInvalid, match="not of the log"):
        open_note(sealed(), "openk.test/another", PUBLIC)


@given(st.data())
def test_every_changed_character_is_noticed(data: st.DataObject) -> None:
    text = sealed()
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters().filter(lambda drawn: drawn != text[at]))
    with pytest.raises(CheckpointInvalid):
        open_note(text[:at] + char + text[at + 1 :], ORIGIN, PUBLIC)


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([ORIGIN, "7", "\n", "\n\n", "\u2014 ", " ", "AAAA", "+"])).map("".join)
)
def test_any_other_text_is_refused_and_nothing_worse_happens(text: str) -> None:
    with pytest.raises(CheckpointInvalid):
        open_note(text, ORIGIN, PUBLIC)


def test_a_note_that_cannot_be_written_as_utf_8_is_refused() -> None:
    body = f"{ORIGIN}\n7\n{b64encode(bytes(32)).decode()}\n\ud800"
    signature = b64encode(key_hash(ORIGIN, PUBLIC) + bytes(64)).decode()
    with pytest.raises(CheckpointInvalid, match="not text"):
        open_note(f"{body}\n\n\u2014 {ORIGIN} {signature}\n", ORIGIN, PUBLIC)


@pytest.mark.parametrize("size", ["", "-1", "07", "1e3", "\u0661", "9" * 30])
def test_a_size_is_a_plain_number(size: str) -> None:
    body = f"{ORIGIN}\n{size}\n{b64encode(bytes(32)).decode()}\n"
    signature = b64encode(key_hash(ORIGIN, PUBLIC) + KEY.sign(body.encode())).decode()
    with pytest.raises(CheckpointInvalid):
        open_note(f"{body}\n\u2014 {ORIGIN} {signature}\n", ORIGIN, PUBLIC)


def test_the_public_key_comes_raw_or_as_der() -> None:
    der = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert raw_public(der) == raw_public(PUBLIC) == PUBLIC
    with pytest.raises(CheckpointInvalid):
        raw_public(der[:-1])
