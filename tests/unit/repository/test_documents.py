"""Documents: links lead somewhere, folders introduce themselves, nothing tells of a machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PAGES = [name for name in TRACKED if name.endswith(".md")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name}: {target}"


def test_folders_of_code_introduce_themselves() -> None:
    rooms = {str(Path(name).parent) for name in TRACKED if name.endswith("/__init__.py")}
    rooms -= {"daemon/openk_daemon"}  # its rooms do, and docs/one-request.md walks through them
    missing = [room for room in rooms if not any((ROOT / room / up / "README.md").exists() for up in (".", ".."))]
    assert missing == []


def test_scripts_can_be_run() -> None:
    for name in ("quickstart", "check", "audit-dependencies", "requirements/install", "requirements/lock", "requirements/sbom", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, name
        assert subprocess.run(["sh", "-n", str(ROOT / name)], check=False).returncode == 0
