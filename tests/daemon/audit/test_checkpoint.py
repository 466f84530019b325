"""Checkpoints as text, and texts that are none. What is signed and how keys are named: test_note_key."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon.audit.checkpoint import Checkpoint, CheckpointInvalid, open_note, seal
from tests.daemon.audit.logs import KEY, KINDS, NOTE_KEY, ORIGIN, PrivateKey, answer_of, note_key_of


def sealed(size: int = 7, key: PrivateKey = KEY) -> str:
    checkpoint = Checkpoint(ORIGIN, size, bytes(range(32)))
    return seal(checkpoint, note_key_of(key), answer_of(key, checkpoint.body()))


def signed(body: str) -> str:
    signature = b64encode(NOTE_KEY.key_id(ORIGIN) + KEY.sign(body.encode())).decode()
    return f"\u2014 {ORIGIN} {signature}\n"


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20)
@given(size=st.integers(0, 1 << 62), root=st.binary(min_size=32, max_size=32))
def test_a_sealed_checkpoint_opens(kind: str, size: int, root: bytes) -> None:
    checkpoint, key = Checkpoint(ORIGIN, size, root), KINDS[kind]()
    text = seal(checkpoint, note_key_of(key), answer_of(key, checkpoint.body()))
    assert open_note(text, ORIGIN, note_key_of(key)) == checkpoint
    assert text.split("\n")[:2] == [ORIGIN, str(size)]


def test_lines_for_extensions_and_signatures_of_witnesses_are_let_through() -> None:
    body = f"{ORIGIN}\n7\n{b64encode(bytes(32)).decode()}\nan extension\n"
    witness = b64encode(b"abcd" + bytes(72)).decode()
    text = f"{body}\n\u2014 witness.example {witness}\n{signed(body)}"
    assert open_note(text, ORIGIN, NOTE_KEY).size == 7


@pytest.mark.parametrize("other", [Ed25519PrivateKey.generate(), *(KINDS[kind]() for kind in ("p-256", "rsa-3072"))])
def test_a_signature_by_another_key_does_not_seal(other: PrivateKey) -> None:
    checkpoint = Checkpoint(ORIGIN, 1, bytes(32))
    with pytest.raises(CheckpointInvalid):
        seal(checkpoint, NOTE_KEY, answer_of(other, checkpoint.body()))
    text = seal(checkpoint, note_key_of(other), answer_of(other, checkpoint.body()))
    with pytest.raises(CheckpointInvalid, match="not signed by this audit key"):
        open_note(text, ORIGIN, NOTE_KEY)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [b"", b"\x00", bytes(64), bytes(384), b"\xff" * 64])
def test_whatever_an_hsm_answers_is_no_signature(kind: str, answer: bytes) -> None:
    with pytest.raises(CheckpointInvalid):
        seal(Checkpoint(ORIGIN, 1, bytes(32)), note_key_of(KINDS[kind]()), answer)


def test_a_checkpoint_of_another_log_does_not_open() -> None:
    with pytest.raises(CheckpointInvalid, match="not of the log"):
        open_note(sealed(), "openk.test/another", NOTE_KEY)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_changed_character_is_noticed(kind: str, data: st.DataObject) -> None:
    key = KINDS[kind]()
    text = sealed(key=key)
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters().filter(lambda drawn: drawn != text[at]))
    with pytest.raises(CheckpointInvalid):
        open_note(text[:at] + char + text[at + 1 :], ORIGIN, note_key_of(key))


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([ORIGIN, "7", "\n", "\n\n", "\u2014 ", " ", "AAAA", "+"])).map("".join)
)
def test_any_other_text_is_refused_and_nothing_worse_happens(text: str) -> None:
    with pytest.raises(CheckpointInvalid):
        open_note(text, ORIGIN, NOTE_KEY)


def test_a_note_that_cannot_be_written_as_utf_8_is_refused() -> None:
    body = f"{ORIGIN}\n7\n{b64encode(bytes(32)).decode()}\n\ud800"
    signature = b64encode(NOTE_KEY.key_id(ORIGIN) + bytes(64)).decode()
    with pytest.raises(CheckpointInvalid, match="not text"):
        open_note(f"{body}\n\n\u2014 {ORIGIN} {signature}\n", ORIGIN, NOTE_KEY)


@pytest.mark.parametrize("size", ["", "-1", "07", "1e3", "\u0661", "9" * 30])
def test_a_size_is_a_plain_number(size: str) -> None:
    body = f"{ORIGIN}\n{size}\n{b64encode(bytes(32)).decode()}\n"
    with pytest.raises(CheckpointInvalid):
        open_note(f"{body}\n{signed(body)}", ORIGIN, NOTE_KEY)
