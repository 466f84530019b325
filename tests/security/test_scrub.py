"""What calls into libcrypto leave in dead stack frames and registers is gone after the decoy call; without it, it is not."""

from __future__ import annotations

import os

import pytest

from tests.security.test_scan_finds_leaks import victim
from tests.support.scan import scan

OPERATIONS = """
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from openk_memory.pool import Pool
from openk_memory.scrub import scrub
pool = Pool(1 << 20)
size = int(sys.argv[4])

def seal(secret, out):          # the secret is the key
    AESGCM(secret).encrypt_into(bytes(12), bytes(size), None, out)
def open_(secret, out):
    box = bytearray(size + 16)
    with pool.lease(size) as text:
        for at in range(0, size, 32):
            text.view[at:at + 32] = secret[:min(32, size - at)]
        AESGCM(bytes(range(32))).encrypt_into(bytes(12), text.view, None, box)
    AESGCM(bytes(range(32))).decrypt_into(bytes(12), box, None, out[:size])   # the secret is the plaintext
def chacha(secret, out):        # openk does not use it, and the scrub is not made for it
    ChaCha20Poly1305(secret).encrypt_into(bytes(12), bytes(size), None, out)
def mac(secret, out):
    state = hmac.HMAC(secret, hashes.SHA256())
    state.update(bytes(size))
    state.finalize()
def expand(secret, out):
    HKDFExpand(hashes.SHA256(), 64, b"info").derive_into(secret, out[:64])

pool.lease(size + 64).release()
operation = {"seal": seal, "open": open_, "chacha": chacha, "mac": mac, "expand": expand}[sys.argv[2]]
sock.send(b"ready")
with pool.lease(32) as secret, pool.lease(size + 64) as out:
    sock.recv_into(secret.view)
    operation(secret.view, out.view[: 64 if operation is expand else size + 16])
if sys.argv[3] == "scrubbed":
    scrub()
report(b"done")
"""


def hits_after(operation: str, scrubbed: bool, size: int) -> int:
    canary = os.urandom(32)
    with victim(OPERATIONS, operation, "scrubbed" if scrubbed else "dirty", str(size)) as process:
        assert process.sock.recv(10) == b"ready"
        process.give(canary)
        return len(scan(process.pid, [canary]))


@pytest.mark.parametrize("size", [6, 64, 1000, 16384])
@pytest.mark.parametrize("operation", ["seal", "open", "mac", "expand"])
def test_nothing_is_left(operation: str, size: int) -> None:
    assert hits_after(operation, scrubbed=True, size=size) == 0


def test_without_the_scrub_something_is_left() -> None:
    """By AES-GCM where the processor has AVX-512 (in its registers), by ChaCha20 with AVX2 (on the stack)."""
    operations = ("seal", "open", "chacha")
    assert sum(hits_after(operation, scrubbed=False, size=1000) for operation in operations) > 0
