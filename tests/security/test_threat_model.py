"""docs/threat-model.md promises nothing that no test tries to break: each test it names exists, each row names one."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
NAMED = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| H\d+ \|", line)]
"""What holds."""


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


@pytest.mark.parametrize("named", sorted(set(NAMED.findall(PAGE))))
def test_it_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert (ROOT / path).is_file()
    if name:
        assert re.search(rf"^\s*(?:async )?def {name}\(", text(path), re.MULTILINE), f"{path} has no {name}"
    else:
        assert path.endswith("_starts.py") or "def test_" in text(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_what_holds_is_proved_against_somebody(row: str) -> None:
    _, _, against, protects, _, mechanism, proof, _ = row.split("|")
    assert NAMED.search(proof)
    assert mechanism.strip()
    if against.strip() != "all":
        assert set(numbers(against, "E")) <= declared("E")
        assert numbers(against, "E")
    if protects.strip() != "all":
        assert set(numbers(protects, "A")) <= declared("A")
        assert numbers(protects, "A")


@pytest.mark.parametrize("letter", ["A", "E", "H", "S"])
def test_numbers_have_no_gap_and_none_comes_twice(letter: str) -> None:
    found = [int(number) for number in re.findall(rf"^\| {letter}(\d+) \|", PAGE, re.MULTILINE)]
    assert found == list(range(1, len(found) + 1))
    assert found


def test_every_asset_and_every_adversary_is_answered() -> None:
    for letter, column in (("E", 2), ("A", 3)):
        answered = {name for row in ROWS for name in numbers(row.split("|")[column], letter)}
        assert answered == declared(letter)


def test_what_does_not_hold_is_numbered() -> None:
    found = [int(number) for number in re.findall(r"^- \*\*N(\d+)\.", PAGE, re.MULTILINE)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 10


def declared(letter: str) -> set[str]:
    return {f"{letter}{number}" for number in re.findall(rf"^\| {letter}(\d+) \|", PAGE, re.MULTILINE)}


def numbers(cell: str, letter: str) -> list[str]:
    """A1, A3-A5 -> A1 A3 A4 A5."""
    found: list[str] = []
    for first, last in re.findall(rf"{letter}(\d+)(?:-{letter}(\d+))?", cell):
        found += [f"{letter}{number}" for number in range(int(first), int(last or first) + 1)]
    return found
