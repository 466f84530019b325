"""AES key expansion (FIPS 197, section 5.2), to look for an expanded key in memory. Slow, and for tests only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache


def expand(key: bytes) -> list[bytes]:
    """The round keys of a 16, 24 or 32 byte key, 16 bytes each; the first ones are the key itself."""
    length = len(key) // 4
    box = _box()
    words = [key[at : at + 4] for at in range(0, len(key), 4)]
    constant = 1
    for index in range(length, 4 * (length + 7)):
        word = words[index - 1]
        if index % length == 0:
            word = bytes(box[byte] for byte in (*word[1:], word[0]))
            word = bytes((word[0] ^ constant, *word[1:]))
            constant = _double(constant)
        elif length > 6 and index % length == 4:
            word = bytes(box[byte] for byte in word)
        words.append(bytes(left ^ right for left, right in zip(words[index - length], word, strict=True)))
    return [b"".join(words[at : at + 4]) for at in range(0, len(words), 4)]


def traces(key: bytes) -> Iterator[bytes]:
    """8 bytes each of round keys that are not the key itself, in both orders in which implementations keep words."""
    rounds = expand(key)
    for number in (2, len(rounds) // 2, len(rounds) - 1):
        half = rounds[number][:8]
        yield half
        yield half[3::-1] + half[7:3:-1]


def _double(value: int) -> int:
    return (value << 1) ^ (0x11B if value & 0x80 else 0)


def _multiply(left: int, right: int) -> int:
    product = 0
    while right:
        if right & 1:
            product ^= left
        left, right = _double(left), right >> 1
    return product


@cache
def _box() -> bytes:
    made = bytearray(256)
    for value in range(256):
        inverse = next((other for other in range(256) if _multiply(value, other) == 1), 0)
        rotated = 0x63
        for shift in range(5):
            rotated ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        made[value] = rotated
    return bytes(made)
