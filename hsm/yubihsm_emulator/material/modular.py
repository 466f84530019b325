"""Powers modulo an odd number, by the OpenSSL that Python's own `hashlib` is linked to.

`cryptography` has no RSA without padding, and Python's integers need fifty times as long as OpenSSL for the private
half of it (45 ms for 4096 bits, measured). Where that OpenSSL cannot be reached (a Python that is linked statically)
Python's integers do it: slower, and the same number.

Functions as in BN_mod_exp(3) and BN_bin2bn(3), whose types have not changed since OpenSSL 1.0.
"""

import _hashlib  # its file names the library, whatever that is called on this machine
import ctypes
from functools import lru_cache
from typing import Final

_SHORT: Final = 64
"""Bits of an exponent up to which a call outwards is not worth its cost."""
_BIGNUM: Final = ctypes.c_void_p


class Bignums:
    """Raises OSError, AttributeError where there is no such library."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_hashlib.__file__)
        self._read = library.BN_bin2bn
        self._read.argtypes, self._read.restype = [ctypes.c_char_p, ctypes.c_int, _BIGNUM], _BIGNUM
        self._write = library.BN_bn2binpad
        self._write.argtypes, self._write.restype = [_BIGNUM, ctypes.c_char_p, ctypes.c_int], ctypes.c_int
        self._power = library.BN_mod_exp
        self._power.argtypes, self._power.restype = [_BIGNUM] * 5, ctypes.c_int
        self._free = library.BN_free
        self._free.argtypes, self._free.restype = [_BIGNUM], None
        self._context = library.BN_CTX_new
        self._context.argtypes, self._context.restype = [], _BIGNUM
        self._free_context = library.BN_CTX_free
        self._free_context.argtypes, self._free_context.restype = [_BIGNUM], None

    def power(self, base: int, exponent: int, modulus: int) -> int:
        """Raises MemoryError where OpenSSL does not do it."""
        size = (modulus.bit_length() + 7) // 8
        numbers = [self._number(value) for value in (0, base, exponent, modulus)]
        context = self._context()
        answer = ctypes.create_string_buffer(size)
        try:
            if not (all(numbers) and context and self._power(*numbers, context)):
                raise MemoryError
            if self._write(numbers[0], answer, size) != size:
                raise MemoryError
        finally:
            for number in numbers:
                self._free(number)
            self._free_context(context)
        return int.from_bytes(answer.raw, "big")

    def _number(self, value: int) -> int | None:
        encoded = value.to_bytes((value.bit_length() + 7) // 8, "big")
        number: int | None = self._read(encoded, len(encoded), None)
        return number


@lru_cache(maxsize=1)
def bignums() -> Bignums | None:
    """OpenSSL's, None where it is out of reach."""
    try:
        return Bignums()
    except (OSError, AttributeError):
        return None


def power(base: int, exponent: int, modulus: int) -> int:
    """`base` ** `exponent` mod `modulus`, all positive, the modulus odd."""
    library = bignums() if exponent.bit_length() > _SHORT else None
    return pow(base, exponent, modulus) if library is None else library.power(base, exponent, modulus)
