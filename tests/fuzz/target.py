"""What a fuzz target is. Imports nothing of openk: the packages that are fuzzed are imported under instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

FOUND = Path(__file__).parent / "found"
"""Inputs that once showed a fault, one file each, in a folder a target."""


@dataclass(frozen=True)
class Target:
    """`run` returns, or raises AssertionError for a property that does not hold; whatever else comes out of it is a
    fault too. It keeps nothing from one call to the next.

    `seeds`: valid inputs to begin with, made from code and tests/vectors. `words`: what a mutation by bytes would not
    hit upon. `most`: bytes of an input. `runs`: how many the short run does, a few seconds' worth."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    most: int = 512
    runs: int = 5000


def inputs(target: Target) -> list[bytes]:
    """All that the target begins with: seeds, then what was found, in an order that is always the same."""
    folder = FOUND / target.name
    found = [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return list(dict.fromkeys([*target.seeds(), *found]))
