"""`./quickstart` from a fresh copy: it works, it works again, it stops; and the README shows what it shows."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def quickstart(checkout: Path, *words: str) -> str:
    result = subprocess.run(
        ["./quickstart", *words], cwd=checkout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=240, check=False, env={name: value for name, value in os.environ.items() if not name.startswith("SUDO_")},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def commands(screen: str) -> list[str]:
    """The commands shown, without the folder they are shown with."""
    return [re.sub(r"'[^']*/demo(?=[/'])", "'DEMO", line) for line in screen.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """What git has, as it is now, below a short path with spaces (a socket's path holds 107 bytes)."""
    folder = Path("/tmp") / f"openk quickstart {os.getpid()}"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    try:
        yield folder
    finally:
        subprocess.run(["./quickstart", "stop"], cwd=folder, check=False, stdout=subprocess.DEVNULL, timeout=60)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def screen(checkout: Path) -> str:
    return quickstart(checkout)


def test_the_walk_did_real_work(screen: str, checkout: Path) -> None:
    for words in ("openkd ready:", "identical: ", "Verified OK", "[policy.denied]", "no-decryption-today", "verified: origin"):
        assert words in screen
    demo = checkout / "demo"
    assert (demo / "document.opened").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" not in (demo / "document.sealed").read_bytes()


def test_the_readme_shows_it_as_it_is(screen: str) -> None:
    shown = (ROOT / "README.md").read_text().partition("$ ./quickstart\n")[2].partition("\n```")[0]
    assert commands(shown) == commands(screen)
    headings = r"^\d\. .*$"
    assert re.findall(headings, shown, re.MULTILINE) == re.findall(headings, screen, re.MULTILINE)
    components = r"^([a-z-]+) +(?:ok|degraded|failed|unknown)\b"
    assert re.findall(components, shown, re.MULTILINE) == re.findall(components, screen, re.MULTILINE)


@pytest.mark.usefixtures("screen")
def test_it_runs_again_stops_and_finds_its_keys(checkout: Path) -> None:
    again = quickstart(checkout)
    assert "openkd is running already" in again
    assert "version: 2" in again
    assert "has stopped" in quickstart(checkout, "stop")
    assert "is not running" in quickstart(checkout, "stop")
    third = quickstart(checkout)
    assert "openkd ready:" in third
    assert "version: 3" in third
    assert "openk vault create" not in third
