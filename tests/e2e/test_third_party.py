"""Programs that nobody here wrote agree with openk: pynvim's MessagePack-RPC, openssl, cryptography.

Keys never leave the HSM, so what `cryptography` re-computes is what openk gives out: data keys, shared secrets, and
signatures. The vectors of tests/vectors open whole records from docs/formats.md.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import openk
from tests.support.daemon import RunningDaemon

DOCUMENT = b"a document\n" * 50


@pytest.fixture(scope="module", autouse=True)
def vault(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        client.vault.create("third-party")


def openssl(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, cwd=cwd, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


RPC = """
import sys, pynvim
session = pynvim.socket_session(path=sys.argv[1])
assert session.request("system.ping", {"echo": b"echo"})["echo"] == b"echo"
sealed = session.request("key.encrypt", {"key": "third-party/rpc", "input": b"4111", "aad": b"17"})
opening = {"key": "third-party/rpc", "ciphertext": sealed["ciphertext"]}
assert session.request("key.decrypt", {**opening, "aad": b"17"})["plaintext"] == b"4111"
try:
    session.request("key.decrypt", {**opening, "aad": b"18"})
except Exception as error:
    assert "key.ciphertext_invalid" in str(error), error
else:
    raise AssertionError("opened with another AAD")
print(sealed["ciphertext"].hex())
"""
"""In a process of its own: pynvim leaves its event loop open, which would be a warning here."""


def test_pynvims_rpc_client_encrypts_and_decrypts(daemon: RunningDaemon, client: openk.Client) -> None:
    client.key.create("third-party/rpc", "aes-256-gcm")
    command = [sys.executable, "-c", RPC, str(daemon.socket)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    ciphertext = bytes.fromhex(done.stdout)
    assert bytes(client.key.decrypt("third-party/rpc", ciphertext, aad=b"17").plaintext) == b"4111"


SIGNING = [
    (algorithm, protection, hash_, padding_)
    for algorithm, hashes, paddings in (
        ("p-256", ("sha256",), ("",)),
        ("p-384", ("sha384",), ("",)),
        ("p-521", ("sha512",), ("",)),
        ("rsa-2048", ("sha256",), ("pkcs1v15", "pss")),
    )
    for protection in ("wrapped", "resident")
    for hash_ in hashes
    for padding_ in paddings
]


@pytest.mark.parametrize(("algorithm", "protection", "hash_", "padding_"), SIGNING)
def test_openssl_verifies(
    client: openk.Client, tmp_path: Path, algorithm: str, protection: str, hash_: str, padding_: str
) -> None:
    key = f"third-party/{algorithm}-{protection}-{hash_}-{padding_ or 'ecdsa'}"
    client.key.create(key, algorithm, purpose="sign", protection=protection)
    wire_hash = f"{hash_[:3]}-{hash_[3:]}"
    signed = client.key.sign(key, DOCUMENT, hash=wire_hash, padding=padding_ or None)
    (tmp_path / "public.pem").write_text(client.key.public(key).pem)
    (tmp_path / "signature").write_bytes(signed.signature)
    (tmp_path / "document").write_bytes(DOCUMENT)
    pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"] if padding_ == "pss" else []
    told = openssl(
        "dgst", f"-{hash_}", *pss, "-verify", "public.pem", "-signature", "signature", "document", cwd=tmp_path
    )
    assert told == "Verified OK\n"


@pytest.mark.parametrize("protection", ["resident", "cached"])
def test_openssl_verifies_ed25519(client: openk.Client, tmp_path: Path, protection: str) -> None:
    key = f"third-party/ed25519-{protection}"
    client.key.create(key, "ed25519", protection=protection)
    (tmp_path / "public.pem").write_text(client.key.public(key).pem)
    (tmp_path / "signature").write_bytes(client.key.sign(key, DOCUMENT).signature)
    (tmp_path / "document").write_bytes(DOCUMENT)
    verify = (
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "public.pem",
        "-rawin",
        "-in",
        "document",
        "-sigfile",
        "signature",
    )
    assert "Verified Successfully" in openssl(*verify, cwd=tmp_path)


def test_a_file_sealed_with_a_data_key_opens_without_openk(client: openk.Client) -> None:
    """What docs/protocol.md advises for files; and the wrapped form is the envelope docs/formats.md draws."""
    client.key.create("third-party/box", "aes-256-gcm", purpose="wrap")
    made = client.key.data_key("third-party/box", aad=b"file 7")
    assert made.plaintext is not None
    header = struct.unpack_from(">BBB16sI", made.wrapped)
    assert (*header[:3], header[4]) == (1, 2, 1, made.version)
    assert len(made.wrapped) == 51 + 32
    sealed = AESGCM(bytes(made.plaintext)).encrypt(bytes(12), DOCUMENT, None)
    again = client.key.unwrap("third-party/box", made.wrapped, aad=b"file 7").output
    assert AESGCM(bytes(again)).decrypt(bytes(12), sealed, None) == DOCUMENT


def test_cryptography_agrees_with_openk_on_shared_secrets(client: openk.Client) -> None:
    for name, curve in (("p-256", ec.SECP256R1()), ("p-384", ec.SECP384R1()), ("p-521", ec.SECP521R1())):
        key = f"third-party/agree-{name}"
        client.key.create(key, name, purpose="agree")
        theirs = ec.generate_private_key(curve)
        point = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ours = serialization.load_der_public_key(client.key.public(key).public)
        assert isinstance(ours, ec.EllipticCurvePublicKey)
        assert bytes(client.key.agree(key, point).shared) == theirs.exchange(ec.ECDH(), ours)
    client.key.create("third-party/x25519", "x25519")
    mine = x25519.X25519PrivateKey.generate()
    raw = mine.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    peer = serialization.load_der_public_key(client.key.public("third-party/x25519").public)
    assert isinstance(peer, x25519.X25519PublicKey)
    assert bytes(client.key.agree("third-party/x25519", raw).shared) == mine.exchange(peer)


def test_cryptography_encapsulates_for_openk(client: openk.Client) -> None:
    client.key.create("third-party/kem", "ml-kem-768")
    public = serialization.load_der_public_key(client.key.public("third-party/kem").public)
    assert isinstance(public, mlkem.MLKEM768PublicKey)
    shared, ciphertext = public.encapsulate()
    assert bytes(client.key.decapsulate("third-party/kem", ciphertext).shared) == shared


def test_cryptography_encrypts_to_an_rsa_key(client: openk.Client) -> None:
    """SoftHSM2 has OAEP with SHA-1 only; the document says so, and that encrypting refuses what it could not open."""
    client.key.create("third-party/oaep", "rsa-2048", purpose="decrypt")
    public = serialization.load_der_public_key(client.key.public("third-party/oaep").public)
    assert isinstance(public, rsa.RSAPublicKey)
    sealed = public.encrypt(b"4111", padding.OAEP(padding.MGF1(SHA1()), SHA1(), None))
    assert bytes(client.key.decrypt("third-party/oaep", sealed, hash="sha-1").plaintext) == b"4111"
    with pytest.raises(openk.errors.KeyFault):
        client.key.encrypt("third-party/oaep", b"4111")
