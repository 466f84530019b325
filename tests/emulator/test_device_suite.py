"""python-yubihsm's own tests of a real device, unchanged, against the emulator over HTTP."""

import os
import signal
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from tests.support.emulator import Emulator

ROOT = Path(__file__).parents[2]
VERSION = "3.1.2"

TESTS = {
    "test_aes": 26,
    "test_attestation": 65,
    "test_auth": 7,
    "test_basic": 13,
    "test_delete": 7,
    "test_ec": 93,
    "test_hmac": 13,
    "test_logs": 5,
    "test_opaque": 5,
    "test_otp": 5,
    "test_reset": 1,
    "test_rsa": 55,
    "test_wrap": 15,
}
SKIPPED = {"test_attestation": 1, "test_basic": 3}
"""Those for FIPS devices; they find out by asking for the option."""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The unpacked source distribution."""
    archive = ROOT / ".venv" / "sources" / f"yubihsm-{VERSION}.tar.gz"
    assert archive.exists(), f"{archive} is missing: run requirements/install dev"
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path / f"yubihsm-{VERSION}"


def count(report: Path) -> tuple[Counter[str], Counter[str], list[str]]:
    """Tests by file, those skipped, and what went wrong, from a JUnit report."""
    tests, skipped = Counter[str](), Counter[str]()
    failed: list[str] = []
    for case in ET.parse(report).getroot().iter("testcase"):
        file = case.attrib["classname"].removeprefix("tests.device.").split(".")[0]
        tests[file] += 1
        skipped[file] += case.find("skipped") is not None
        failed += [
            f"{file}::{case.attrib['name']}: {problem.attrib.get('message', '')}"
            for problem in (*case.iter("failure"), *case.iter("error"))
        ]
    return tests, +skipped, failed


def test_all_of_it_passes(suite: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with Emulator("--serial", "7550001") as emulator:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:trio", "-p", "no:cacheprovider", "tests/device",
             "--backend", emulator.url, f"--junitxml={report}"],
            cwd=suite, env={**os.environ, "PYTEST_ADDOPTS": ""}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        ended = emulator.kill(signal.SIGTERM)
    assert report.exists(), done.stdout + done.stderr
    tests, skipped, failed = count(report)
    assert failed == []
    assert dict(tests) == TESTS
    assert dict(skipped) == SKIPPED
    assert (sum(TESTS.values()), sum(SKIPPED.values())) == (310, 4)
    assert done.returncode == 0
    assert ended == (0, "")  # it lived to the end, and had nothing to complain of
