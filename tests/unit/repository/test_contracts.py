"""The import contracts of setup.cfg hold, and would notice if they did not."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def lint_imports(config: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", str(config), "--no-cache"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_contracts_hold() -> None:
    result = lint_imports(ROOT / "setup.cfg")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_an_import_upwards_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "daemon"
    shutil.copytree(ROOT / "daemon", copy, ignore=shutil.ignore_patterns("__pycache__"))
    refusal = copy / "openk_daemon" / "refusal.py"
    refusal.write_text(refusal.read_text() + "\nimport openk_daemon.store.seam\n")
    result = lint_imports(ROOT / "setup.cfg", copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Inside the daemon imports point down BROKEN" in result.stdout


def test_the_map_names_every_package() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    named = set(parser["options"]["packages"].split())
    found = set[str]()
    for line in parser["options"]["package_dir"].strip().splitlines():
        name, _, folder = line.partition("=")
        base = ROOT / folder.strip()
        if not (base / "__init__.py").exists():  # data that is installed beside the code (policies)
            named = {package for package in named if package.split(".")[0] != name.strip()}
        packages = (init.parent.relative_to(base) for init in base.rglob("__init__.py"))
        found |= {".".join([name.strip(), *package.parts]) for package in packages}
    assert named == found
