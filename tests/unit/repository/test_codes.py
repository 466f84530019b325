"""Every error code is raised somewhere, tried somewhere, and on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openk.wire.codes import CODES

ROOT = Path(__file__).parents[3]
ROOMS = ("client", "memory", "hsm", "daemon", "tools")


def _text(*folders: str, without: str) -> str:
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if path.name != without)
    return "\n".join(path.read_text("utf-8") for path in paths)


CODE = _text(*ROOMS, without="codes.py")
TESTS = _text("tests", without=Path(__file__).name)


@pytest.mark.parametrize("name", CODES)
def test_no_code_is_unused(name: str) -> None:
    assert f'"{name}"' in CODE, f"nothing answers {name}: raise it, or take it out of the table before a release"


@pytest.mark.parametrize("name", CODES)
def test_no_code_is_untested(name: str) -> None:
    assert re.search(rf"\b{re.escape(name)}\b", TESTS), f"no test brings {name} about"


def test_no_refusal_names_a_code_that_is_not_in_the_table() -> None:
    """`Refusal("...")` would raise KeyError where it is least wanted."""
    raised = set(re.findall(r"Refusal\(\s*\"([^\"]+)\"", CODE)) | set(re.findall(r"^    code = \"([^\"]+)\"", CODE, re.MULTILINE))
    assert len(raised) > 40
    assert raised - {"usage"} <= CODES.keys()  # "usage" is the command line's own, and never sent


@pytest.mark.parametrize("name", CODES)
def test_every_code_is_on_the_page(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs" / "errors.md").read_text("utf-8")
