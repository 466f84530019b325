"""The curve of Ed25519 (RFC 8032 section 5.1) in Python's integers, only as far as signing needs it:
multiples of the base point.

Used for keys whose seed is not known (imported under wrap without it); all others are signed with by a library.
"""

from functools import lru_cache
from typing import Final

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_P: Final = 2**255 - 19
_D2: Final = 2 * -121665 * pow(121666, -1, _P) % _P
_BASE_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y: Final = 46316835694926478169428394003475163141307993866256225615783033603165251855960

_Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T with x = X/Z, y = Y/Z, x y = T/Z."""


def multiple_of_base(scalar: int) -> bytes:
    """`scalar` (not negative) times the base point, in the 32 bytes of RFC 8032 section 5.1.2."""
    scalar %= ORDER
    total: _Point = (0, 1, 1, 0)
    for row in _table():
        total = _add(total, row[scalar & 15])
        scalar >>= 4
    inverse = pow(total[2], -1, _P)
    x, y = total[0] * inverse % _P, total[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _add(left: _Point, right: _Point) -> _Point:
    # RFC 8032 section 5.1.4; complete, so it doubles and adds the neutral point too.
    a = (left[1] - left[0]) * (right[1] - right[0]) % _P
    b = (left[1] + left[0]) * (right[1] + right[0]) % _P
    c = left[3] * _D2 * right[3] % _P
    d = 2 * left[2] * right[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[_Point, ...], ...]:
    """Row i holds 0 to 15 times 16**i times the base point."""
    rows: list[tuple[_Point, ...]] = []
    start: _Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)
    for _ in range(64):
        row: list[_Point] = [(0, 1, 1, 0)]
        for _ in range(15):
            row.append(_add(row[-1], start))
        rows.append(tuple(row))
        start = _add(row[-1], start)
    return tuple(rows)
