"""Scrub what a cryptographic call leaves behind in dead stack frames and vector registers of this thread.

AESGCM's key schedule and the last blocks of plaintext stay in registers (AVX-512: zmm16 and up survive most code) and
are later spilled to the stack. Nothing in Python reaches them; the same code path with public inputs does: it loads
its own key and its own zeros into the same registers and frames. No compiler needed, about three microseconds.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PUBLIC_KEY: Final = bytes(range(32))
NONCE: Final = bytes(12)
TEXT: Final = bytes(512)  # long enough for the widest path of libcrypto (16 blocks at once), twice


def scrub() -> None:
    """Call it in the thread that used the secret, after `del` of the cipher object and after wiping."""
    decoy = AESGCM(PUBLIC_KEY)
    sealed = bytearray(len(TEXT) + 16)  # not shared: another thread's decoy would spoil the tag
    decoy.encrypt_into(NONCE, TEXT, None, sealed)
    decoy.decrypt_into(NONCE, sealed, None, bytearray(len(TEXT)))
