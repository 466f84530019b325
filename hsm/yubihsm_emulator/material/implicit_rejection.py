"""What OpenSSL answers instead of an error when the padding of RSAES-PKCS1-v1_5 is wrong.

Since 3.2 it gives a message that depends on key and ciphertext only (draft-irtf-cfrg-rsa-guidance, "implicit
rejection"), so that attackers learn nothing. A YubiHSM says INVALID DATA; who knows that message can, too.

    key derivation key = HMAC-SHA256(SHA-256(d), ciphertext)
    stream(label, n)   = HMAC-SHA256(key derivation key, counter u16 | label | bits u16), counter = 0, 1, ...: n bytes
    lengths            = 128 numbers u16 of stream("length"), each cut to the bits that the longest length needs
    the message        = so many last bytes of stream("message", n) as the last of these lengths that is short enough
"""

import hashlib
import hmac
from typing import Final

_CANDIDATES: Final = 128
_SHORTEST_PADDING: Final = 8


def secret_of(private_exponent: int, size: int) -> bytes:
    """What the key contributes: a digest of d as `size` bytes (those of the modulus)."""
    return hashlib.sha256(private_exponent.to_bytes(size, "big")).digest()


def synthetic(secret: bytes, ciphertext: bytes) -> bytes:
    """The message for a ciphertext as long as the modulus whose padding is wrong."""
    size = len(ciphertext)
    key = hmac.digest(secret, ciphertext, "sha256")
    longest = size - 2 - _SHORTEST_PADDING
    mask = (1 << longest.bit_length()) - 1
    lengths = _stream(key, b"length", 2 * _CANDIDATES)
    chosen = 0
    for at in range(0, len(lengths), 2):
        candidate = int.from_bytes(lengths[at : at + 2], "big") & mask
        if candidate < longest:
            chosen = candidate
    return _stream(key, b"message", size)[size - chosen :]


def _stream(key: bytes, label: bytes, size: int) -> bytes:
    bits = (8 * size).to_bytes(2, "big")
    blocks = -(-size // 32)
    return b"".join(hmac.digest(key, counter.to_bytes(2, "big") + label + bits, "sha256") for counter in range(blocks))[
        :size
    ]
