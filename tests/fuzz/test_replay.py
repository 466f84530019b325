"""Without a fuzzer, on every platform: each target on its seeds, on what was once found, and on edits of the seeds."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.catalogue import MODULES, load
from tests.fuzz.target import FOUND, inputs

_EDITED = 40


@pytest.mark.parametrize("name", MODULES)
def test_seeds_and_what_was_found_pass(name: str) -> None:
    target = load(name)
    data = inputs(target)
    assert data
    for one in data:
        target.run(one)


@pytest.mark.parametrize("name", MODULES)
def test_edited_seeds_pass(name: str) -> None:
    target = load(name)
    seeds, chance = inputs(target), random.Random(name)
    for _ in range(_EDITED):
        data = bytearray(chance.choice(seeds)[: target.most])
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(data))
            data[at : at + chance.randint(0, 4)] = chance.choice([b"", *target.words, chance.randbytes(1)])
        target.run(bytes(data[: target.most]))


def test_what_was_found_belongs_to_targets() -> None:
    assert {folder.name for folder in FOUND.iterdir()} <= MODULES.keys()
