"""The audit key as notes name it, and how it signs: against notes and key ids that others published."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

import openk_tools.audit_verify as verifier
from openk_daemon.audit.checkpoint import CheckpointInvalid, open_note
from openk_daemon.audit.note_key import NoteKey, NoteKeyInvalid, read_note_key
from tests.daemon.audit.logs import KINDS, answer_of, note_key_of, spki_of

ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")

# From the documentation of golang.org/x/mod/sumdb/note, where the format comes from.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="

# The public log of Sigstore: its verifier key and one of its checkpoints.
REKOR = (
    "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smG"
    "NM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="
)
REKOR_NOTE = b"Rekor\n798034\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n"
REKOR_SIGNATURE = "wNI9ajBEAiARInWIWyCdyG27CO6LPnPekyw20qO0YJfoaPaowGp/XgIgc+qEHS3+GKVClgqq20uDLet7MCoTURUCRdxwWBHHufk="

# Another log with keys of this type (the Pixel phones' firmware), from the tests of transparency-dev/formats.
PIXEL = (
    "pixel6_transparency_log+91c16e30+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN+4x0Jk1yTwvLFI9A4NDdGZcX0aiWVdWM5XJVy0M4VW"
    "D3AvyW5Q6Hs9A0mcDkpUoYgn+KKPNzFC0H3nN3q6JQ8="
)
PIXEL_NOTE = b"DEFAULT\n10\nbsWRucJU5xJPHb5eBdOm6+DM+VelCZBuvtI3sHERJ9Y=\n"
PIXEL_SIGNATURE = "kcFuMDBFAiEAhqMAP8P6qf6QxtUJhzMhbN+MbZ9dwfUHzGQJmffJHtoCIGD0cNe47dHWBoPwYdgBCepB06/+g5O1FmYjXl06owL4"

# The modulus of a key in the tests of Rekor, and what its key id is with the name "testkey".
RSA_MODULUS = (
    "b3b89e4da27c3c09330a4b3efae6c3356e0d738862efefc95264afaaaea921601f8c6ad55c8fd9e913943a7360be3916ea938ffca90ed584"
    "1fb8bb4ff3a5f92c3e37688b1f1ffdd54342fc5f85bae31fc982603d4d641afb0e0e797685746c3e9449c6cb6ae500bde42189ff0406e6a0"
    "0661c965d01643d883abe5ca93741faa901fc85cb744979fbcba71ab0893b181ed342dffe3aa924439e688ccf7571752ae9862cbc08c18d0"
    "c04bc6197a8bbf03a1b5b0fe78c7367e9c3b1a50208a2429ab8921cd6aedb992741ddfc11593691c7f9401d750e09befedd6d70e29dabd5c"
    "c46ef26cb1000df67077f543c7a54427f66a2302e87faa0faf0cdc841f796221"
)
RSA_KEY_ID = 2918460683


def from_verifier_key(text: str) -> NoteKey:
    encoded = b64decode(text.split("+", 2)[2])
    return read_note_key(ED25519_SPKI + encoded[1:] if encoded[0] == 1 else encoded[1:])


@pytest.mark.parametrize(
    ("key", "note", "signature"),
    [
        (NEUMANN, NEUMANN_NOTE, NEUMANN_SIGNATURE),
        (REKOR, REKOR_NOTE, REKOR_SIGNATURE),
        (PIXEL, PIXEL_NOTE, PIXEL_SIGNATURE),
    ],
)
def test_keys_and_signatures_are_those_of_published_notes(key: str, note: bytes, signature: str) -> None:
    found, name, blob = from_verifier_key(key), key.split("+", maxsplit=1)[0], b64decode(signature)
    assert found.verifier_key(name) == key
    assert blob[:4] == found.key_id(name)
    assert found.verifies(note, blob[4:])
    assert not found.verifies(note + b"x", blob[4:])
    stranger = verifier.read_public_key(key)
    assert stranger.key_id(name) == blob[:4]
    assert verifier.verify_signature(stranger, note, blob[4:])
    assert not verifier.verify_signature(stranger, note + b"x", blob[4:])


def test_an_rsa_key_is_named_as_sigstore_names_it() -> None:
    key = rsa.RSAPublicNumbers(65537, int(RSA_MODULUS, 16)).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert int.from_bytes(verifier.PublicKey(verifier.RSA, spki).key_id("testkey"), "big") == RSA_KEY_ID
    ours = note_key_of(KINDS["rsa-3072"]())
    assert ours.key_id("testkey") == verifier.PublicKey(verifier.RSA, ours.spki).key_id("testkey")


VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "checkpoints.json").read_text())["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['algorithm']}: {vector['name']}")
def test_the_vectors(vector: dict[str, str]) -> None:
    """By the daemon and by the verifier, which share no code."""
    key = read_note_key(bytes.fromhex(vector["public"]))
    stranger = verifier.read_public_key(vector["verifier_key"])
    origin = "log.example/audit"
    assert (key.algorithm, key.verifier_key(origin)) == (vector["algorithm"], vector["verifier_key"])
    if "error" in vector:
        with pytest.raises(CheckpointInvalid):
            open_note(vector["note"], origin, key)
        with pytest.raises(verifier.Bad):
            verifier.open_checkpoint(vector["note"], stranger, origin)
        return
    expected = (vector["origin"], vector["size"], bytes.fromhex(vector["root"]))
    opened = open_note(vector["note"], origin, key)
    assert (opened.origin, opened.size, opened.root) == expected
    assert tuple(verifier.open_checkpoint(vector["note"], stranger, origin)) == expected


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(message=st.binary(max_size=100), data=st.data())
def test_what_a_key_signs_a_stranger_verifies(kind: str, message: bytes, data: st.DataObject) -> None:
    key = KINDS[kind]()
    note_key = note_key_of(key)
    signature = note_key.signature(answer_of(key, message))
    stranger = verifier.read_public_key(note_key.verifier_key("openk.test/log"))
    assert note_key.verifies(message, signature)
    assert verifier.verify_signature(stranger, message, signature)
    assert stranger.key_id("openk.test/log") == note_key.key_id("openk.test/log")
    flipped = bytearray(signature)
    bit = data.draw(st.integers(0, 8 * len(signature) - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    assert not note_key.verifies(message, bytes(flipped))
    assert not verifier.verify_signature(stranger, message, bytes(flipped))


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_comes_as_subject_public_key_info(kind: str) -> None:
    key = KINDS[kind]()
    found = read_note_key(spki_of(key))
    assert found.algorithm == kind
    with pytest.raises(NoteKeyInvalid, match="cannot be read"):
        read_note_key(spki_of(key)[:-1])
    for text in (b64encode(found.spki).decode(), found.verifier_key("n")):
        assert verifier.read_public_key(text).key_id("n") == found.key_id("n")


@pytest.mark.parametrize(
    "other",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: rsa.generate_private_key(65537, 2048),
        x25519.X25519PrivateKey.generate,
    ],
)
def test_no_other_key_signs_a_log(other: object) -> None:
    assert callable(other)
    public = other().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(NoteKeyInvalid, match="none of ed25519, p-256, rsa-3072"):
        read_note_key(public)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_key_or_named(data: bytes) -> None:
    with pytest.raises(NoteKeyInvalid):
        read_note_key(data)
