"""What is examined of the dependencies, and the bill of materials: each fault is planted once and seen to be found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from requirements import advisories, examine
from requirements.bill import make_bom
from requirements.examine import ALLOWED, find_faults, find_strangers, is_allowed
from requirements.locks import HERE, Locked, LockError, read_lock

ROOT = Path(__file__).parents[3]
HASH = "--hash=sha256:" + "0f" * 32


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert examine.main() == 0
    assert "runtime: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("click>=8", "is not NAME==VERSION with hashes"),
        (f"click {HASH}", "is not NAME==VERSION with hashes"),
        ("click==8.5.1", "click has no hash"),
        ("--extra-index-url https://example.org/simple", "is not NAME==VERSION with hashes"),
        (f"click @ https://example.org/click.whl {HASH}", "is not NAME==VERSION with hashes"),
        ("-e .", "is not NAME==VERSION with hashes"),
        ("click==8.5.1 --hash=md5:00", "is not NAME==VERSION with hashes"),
    ],
)
def test_a_line_that_is_not_pinned_and_hashed_is_refused(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "runtime.txt"
    path.write_text(f"# comment\nh11==0.16.0 \\\n    {HASH}\n    # via trio\n{line}\n")
    with pytest.raises(LockError, match=says):
        list(read_lock(path))


def test_what_is_installed_is_what_is_locked() -> None:
    faults = find_faults(
        "runtime",
        [
            Locked("click", "1.0", "", ("00",)),
            Locked("no-such-package", "1.0", "", ("00",)),
            Locked("no-such-package-here", "1.0", "sys_platform == 'win32'", ("00",)),
            Locked("hypothesis", "6", "", ("00",)),
        ],
    )
    assert [fault.split()[0] for fault in faults] == ["click", "no-such-package", "hypothesis", "hypothesis"]
    assert "MPL-2.0: see ALLOWED" in faults[-1]
    strangers = find_strangers([one for one in read_lock(HERE / "dev.txt") if one.name != "click"])
    assert strangers == ["click is installed and not locked"]


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND BSD-2-Clause", True),
        ("MIT AND GPL-3.0-only OR MIT", True),
        ("MIT AND (GPL-3.0-only OR MIT)", False),
    ],
)
def test_a_licence_is_allowed_by_the_list_alone(expression: str, verdict: bool) -> None:
    assert is_allowed(expression, ALLOWED["runtime"]) is verdict


WEAK = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"], "aliases": []}]}
GOOD = {"name": "b", "version": "1", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ([GOOD], 0, "runtime: no known weakness"),
        ([GOOD, WEAK], 1, "runtime: a 1: CVE-1, mended in 2"),
        ([WEAK, SKIPPED], 1, "NOT AUDITED: 1 packages"),
        ([GOOD, SKIPPED], 2, "NOT AUDITED: 1 packages could not be looked up"),
        (None, 2, "NOT AUDITED: the advisory service did not answer: no route"),
    ],
)
def test_only_an_answer_about_every_package_is_a_success(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: list[object] | None,
    status: int,
    says: str,
) -> None:
    """pip-audit itself succeeds where it could look up nothing."""
    said = "" if answer is None else json.dumps({"dependencies": answer, "fixes": []})
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\necho 'no route' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert advisories.main() == status
    assert says in capsys.readouterr().out


@pytest.fixture(scope="module")
def bom() -> str:
    return subprocess.run([ROOT / "requirements/sbom"], capture_output=True, text=True, check=True).stdout


def test_the_bill_is_valid_and_the_same_each_time(bom: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(bom) is None
    spoilt = json.loads(bom)
    spoilt["components"][0]["type"] = "nonsense"
    assert validator.validate_str(json.dumps(spoilt)) is not None
    assert make_bom() == bom
    assert str(ROOT) not in bom


def test_the_bill_has_every_locked_package_with_its_files(bom: str) -> None:
    components = {one["name"]: one for one in json.loads(bom)["components"]}
    for locked in read_lock(HERE / "runtime.txt"):
        component = components[locked.name]
        assert component["version"] == locked.version
        assert component["licenses"]
        (files,) = component["externalReferences"]
        assert {one["content"] for one in files["hashes"]} == set(locked.hashes)
    assert {one["name"] for one in components["cryptography"]["components"]} >= {"openssl"}
    assert {one["name"] for one in components["apsw"]["components"]} == {"sqlite"}
    assert {one["name"] for one in components["cedarpy"]["components"]} >= {"cedar-policy"}
    assert components["libseccomp2"]["scope"] == "required"
    assert "version" not in components["libseccomp2"]
    assert (components["setuptools"]["scope"], components["trio"]["scope"]) == ("excluded", "required")


def test_the_bill_says_who_needs_what(bom: str) -> None:
    document = json.loads(bom)
    below = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    root = document["metadata"]["component"]["bom-ref"]
    assert any(one.startswith("pkg:pypi/trio@") for one in below[root])
    assert any(one.startswith("pkg:pypi/openk@") for one in below[root])
    (trio,) = [one for one in below if one.startswith("pkg:pypi/trio@")]
    assert any(one.startswith("pkg:pypi/outcome@") for one in below[trio])
