"""Courses of numbers as one line of text, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Final

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_STEPS: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The newest at the right. Of more values than places each shows the greatest of its share. Blank where
    nothing is known. The lowest level is 0, or the least where that is below."""
    if width < 1 or not values:
        return ""
    cells = [_greatest(part) for part in _parts(values, width)]
    known = [cell for cell in cells if cell is not None]
    low, high = min([0.0, *known]), max(known, default=0.0)
    room = high - low
    drawn = [" " if cell is None else _LEVELS[int((cell - low) / room * 7.999) if room else 0] for cell in cells]
    return "".join(drawn).rjust(width)


def _parts(values: Sequence[float | None], width: int) -> list[Sequence[float | None]]:
    count = min(width, len(values))
    edges = [len(values) * place // count for place in range(count + 1)]
    return [values[start:end] for start, end in pairwise(edges)]


def _greatest(part: Sequence[float | None]) -> float | None:
    return max((value for value in part if value is not None), default=None)


def shown(value: float | None, unit: str, name: str = "") -> str:
    """With its unit; a name that ends in `_share` is a percentage."""
    if value is None:
        return "-"
    if name.endswith("_share"):
        return f"{value:.1%}"
    match unit:
        case "s":
            return seconds(value)
        case "B":
            return next((f"{value / size:.1f} {word}" for size, word in _BYTES if value >= size), f"{value:.0f} B")
        case _:
            return number(value) + ("/s" if unit == "1/s" else "")


def number(value: float) -> str:
    for size, word in _STEPS:
        if value >= 10 * size:
            return f"{value / size:.0f}{word}"
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.2g}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value == inf:
        return "> 16 s"
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"
