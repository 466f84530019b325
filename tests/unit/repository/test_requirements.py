"""The lock files: complete, hashed, hostless, and what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ["runtime", "dev"]


def entries(name: str) -> dict[str, str]:
    """Package to its whole entry, continuation lines included."""
    found: dict[str, str] = {}
    package = ""
    for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines():
        start = re.match(r"([A-Za-z0-9._-]+)==(.*)", line)
        if start:
            package = start[1].lower()
            found[package] = start[2]
        elif package and not line.lstrip().startswith("#"):
            found[package] += line
    return found


def versions(name: str) -> dict[str, str]:
    return {package: rest.split()[0] for package, rest in entries(name).items()}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    found = entries(name)
    assert len(found) > 15
    assert [package for package, rest in found.items() if "--hash=sha256:" not in rest] == []


@pytest.mark.parametrize("name", LOCKS)
def test_no_index_host_is_named(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert "index-url" not in text


def test_dev_is_runtime_and_more() -> None:
    runtime, dev = versions("runtime"), versions("dev")
    assert runtime.items() <= dev.items()
    assert {"pytest", "hypothesis", "mypy", "pyright", "ruff", "import-linter"} <= dev.keys()


def test_sources_are_of_the_versions_installed() -> None:
    sources = versions("sources")
    assert sources.items() <= versions("dev").items()
    assert all("--hash=sha256:" in rest for rest in entries("sources").values())


def test_what_the_package_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = (ROOT / "requirements" / "runtime.in").read_text()
    for dependency in project["dependencies"]:
        if dependency.startswith("openk=="):
            continue  # our own client
        assert dependency in asked.splitlines(), f"{dependency} is not in runtime.in"
        assert re.split(r"[><=]", dependency)[0] in versions("runtime")
