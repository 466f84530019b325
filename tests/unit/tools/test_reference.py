"""The generated pages are those in the repository, and they say all the tables say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from openk.wire.codes import CODES
from openk.wire.methods import METHODS
from openk_tools import manual, reference
from openk_tools.touches import words_of

PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_page_in_the_repository_is_up_to_date(name: str) -> None:
    kept = (reference.DOCS / name).read_text(encoding="utf-8")
    assert kept == PAGES[name], "run: python -m openk_tools.reference"


def test_no_manual_page_is_left_of_a_command_that_is_gone() -> None:
    assert {f"man/{path.name}" for path in (reference.DOCS / "man").glob("*.1")} == {
        name for name in PAGES if name.endswith(".1")
    }


def test_reference_names_every_method_and_field() -> None:
    sections = dict(zip(METHODS, PAGES["reference.md"].split("\n## ")[1:], strict=True))
    for method in METHODS.values():
        assert sections[method.name].startswith(f"{method.name}\n")
        for field in (*method.fields, *method.item, *method.result):
            assert f"`{field.name}`" in sections[method.name]


def test_errors_page_has_every_code() -> None:
    for code in CODES.values():
        assert f"| `{code.name}` | {code.number} |" in PAGES["errors.md"]


def test_manual_has_every_command() -> None:
    for method in METHODS.values():
        noun, verb = words_of(method)
        escaped = verb.replace("-", "\\-")
        assert f".SS openk {noun} {escaped}\n" in PAGES[f"man/openk-{noun}.1"]


@pytest.mark.parametrize("name", manual.pages())
def test_manual_page_is_good_roff(name: str) -> None:
    groff = shutil.which("groff")
    assert groff is not None, "apt install groff-base"
    made = subprocess.run(
        [groff, "-man", "-ww", "-Tutf8"], input=PAGES[f"man/{name}"].encode(), capture_output=True, check=True
    )
    assert not made.stderr, made.stderr.decode()


def test_write_changes_only_what_differs(tmp_path: Path) -> None:
    assert len(reference.write(tmp_path)) == len(PAGES)
    assert reference.write(tmp_path) == []
    (tmp_path / "errors.md").write_text("old")
    (tmp_path / "man" / "openk-gone.1").write_text("old")
    assert {path.name for path in reference.write(tmp_path)} == {"errors.md", "openk-gone.1"}
    assert not (tmp_path / "man" / "openk-gone.1").exists()
