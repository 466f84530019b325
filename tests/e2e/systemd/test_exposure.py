"""How exposed the shipped services are, by systemd's own count."""

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "systemd"
MOST = 1.5


@pytest.mark.parametrize("name", ["openkd.service", "openk-hsm@.service"])
def test_exposure(name: str) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert level, result.stdout + result.stderr
    assert float(level[1]) <= MOST, result.stdout


@pytest.mark.parametrize("name", ["openkd.service", "openk-hsm@.service", "openkd.socket", "openk-alerts.service"])
def test_units_parse_without_a_complaint(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` warns of unknown keys and bad values; only the programs' places are replaced."""
    for unit in ("openkd.service", "openk-hsm@.service", "openkd.socket", "openk-alerts.service"):
        (tmp_path / unit).write_text((UNITS / unit).read_text().replace("/opt/openk/bin/", "/bin/true "))
    target = name.replace("@", "@main")
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / target)],
        capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    complaints = [line for line in result.stderr.splitlines() if "openk" in line]
    assert complaints == []


def test_each_line_of_confinement_has_its_reason() -> None:
    """Every setting of a service stands under a comment of its group."""
    for name in ("openkd.service", "openk-hsm@.service"):
        groups = (UNITS / name).read_text().split("\n\n")
        for group in groups:
            settings = [line for line in group.splitlines() if "=" in line and not line.startswith("#")]
            if settings and not group.startswith(("[Unit]", "[Install]")):
                assert any(line.startswith("# ") for line in group.splitlines()), f"{name}: no reason for {settings[0]}"
