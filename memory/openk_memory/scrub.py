"""Scrub what a cryptographic call leaves behind in dead stack frames and vector registers of this thread.

AESGCM's key schedule and the last blocks of plaintext stay in registers (AVX-512: zmm16 and up survive most code) and
are later spilled to the stack. Nothing in Python reaches them; the same code paths with public inputs do: they load
their own key and their own zeros into the same registers and frames. Both paths, for they use other registers: one for
many blocks at once (which leaves round keys in zmm20 and up), one for less than a block (in xmm15): the scan found
both.
No compiler needed, some five microseconds.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PUBLIC_KEY: Final = bytes(range(32))
NONCE: Final = bytes(12)
TEXTS: Final = (bytes(2048), bytes(6))
"""Long enough for the widest path of libcrypto (48 blocks at once), twice; and too short for any but the narrowest."""


def scrub() -> None:
    """Call it in the thread that used the secret, after `del` of the cipher object and after wiping."""
    decoy = AESGCM(PUBLIC_KEY)
    for text in TEXTS:
        sealed = bytearray(len(text) + 16)  # not shared: another thread's decoy would spoil the tag
        decoy.encrypt_into(NONCE, text, None, sealed)
        decoy.decrypt_into(NONCE, sealed, None, bytearray(len(text)))
