"""Mutation testing with mutmut: `./mutate [PART...]`.

mutmut takes a module's name from its path below one source root. Ours are below five, so the packages are copied side by
side, as they are installed, into a folder of the part's own (.mutation/PART), and mutmut runs there: with one process a
mutant, forked from one that has imported everything, and only those tests that reach the changed function.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
WORK: Final = ROOT / ".mutation"
PACKAGES: Final = {
    "openk": "client/openk",
    "openk_memory": "memory/openk_memory",
    "openk_hsm": "hsm/openk_hsm",
    "yubihsm_emulator": "hsm/yubihsm_emulator",
    "openk_daemon": "daemon/openk_daemon",
    "openk_tools": "tools/openk_tools",
    "openk_policies": "policies",
}
CAUGHT: Final = frozenset({"killed", "timeout", "segfault", "caught by type check"})
BROKEN: Final = 255
"""What mutmut takes for a change that ran out of time when pytest could not even begin."""


@dataclass(frozen=True)
class Part:
    """What is changed, as it is named where packages lie side by side, and the tests that have to notice."""

    changed: Sequence[str]
    tests: Sequence[str]


ALONE: Final = "test_a_true_log_is_verified_by_the_file_alone"
"""A changed file needs mutmut beside it, so it cannot be alone."""
PRELOAD: Final = [
    *(
        "hypothesis",
        "pytest_trio",
        "trio",
        "cedarpy",
        "apsw",
        "msgspec",
        "cryptography.hazmat.primitives.serialization",
    ),
    *("openk_daemon.wiring", "openk_hsm.software", "openk_hsm.inline", "openk_daemon.store.memory"),
]
PROSE: Final = [
    r'\w+\(f?"[^"]* [^"]*"\)',  # an error with one sentence and nothing else: its type is what counts
    r"\b_log\.\w+\(",
    r"\b(help|description)=",
    r"\bcast\(",
]
"""Lines that are not changed: words for people, and what is nothing at run time."""
PARTS: Final = {
    "policy": Part(
        ["openk_daemon/policy/*"],
        ["tests/daemon/policy"],
    ),
    "envelope": Part(
        [f"openk_daemon/hierarchy/{name}.py" for name in ("canonical", "envelope", "records", "sealing")],
        [
            *(f"tests/daemon/keys/test_{name}.py" for name in ("damage", "formats", "lifetime", "vectors")),
            "tests/daemon/secrets",
        ],
    ),
    "audit": Part(
        ["openk_daemon/audit/*"],
        ["tests/daemon/audit"],
    ),
    "verifier": Part(
        ["openk_tools/audit_verify.py"],
        ["tests/daemon/audit/test_verifier.py", "--deselect", f"tests/daemon/audit/test_verifier.py::{ALONE}"],
    ),
    "binding": Part(
        ["openk_hsm/binding.py"],
        ["tests/unit/hsm/test_binding.py"],
    ),
}


def main() -> int:
    arguments = _arguments()
    if arguments.show is not None:
        return _show(arguments.show)
    for name in arguments.part or PARTS:
        folder = _prepare(name, PARTS[name], keep=arguments.again)
        command = ["mutmut", "run", "--max-children", str(arguments.jobs)]
        chosen = [f"*.{module}.x*" for module in arguments.module or ()]
        if arguments.sample:
            subprocess.run([*command, "none"], cwd=folder, check=False)  # makes the changes, and runs none of them
            chosen = _sample(folder, arguments.sample, arguments.seed)
        status = subprocess.run([*command, *chosen], cwd=folder, check=False).returncode
        if status:
            return status
    for name in arguments.part or PARTS:
        _tell(name)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./mutate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="`./mutate --show PART` prints each change that no test noticed, as a difference.",
    )
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}; none: all of them")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--module", action="append", metavar="NAME", help="only this module of the part (repeat it)")
    parser.add_argument("--sample", type=int, metavar="N", help="only N changes of each part, drawn by chance")
    parser.add_argument("--seed", type=int, default=1, help="of the chance (1)")
    parser.add_argument("--again", action="store_true", help="keep what is known of functions that did not change")
    parser.add_argument("--show", choices=PARTS, metavar="PART", help="what survived the last run")
    return parser.parse_args()


def _prepare(name: str, part: Part, *, keep: bool) -> Path:
    folder = WORK / name
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for package, source in {**PACKAGES, "tests": "tests"}.items():
        shutil.copytree(
            ROOT / source, folder / package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    settings = {
        "source_paths": sorted({path.partition("/")[0] for path in part.changed}),
        "only_mutate": part.changed,
        "also_copy": [*PACKAGES],
        "pytest_add_cli_args_test_selection": part.tests,
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "do_not_mutate_patterns": PROSE,
        "timeout_constant": 5.0,  # seconds: a process that was forked imports its test first
        "timeout_multiplier": 6.0,
        # A pool of locked memory is void in a forked child, and test modules make pools: only ours and others' code is
        # imported before the forks.
        "process_isolation": "forkserver",
        "forkserver_warmup": "import",
        "preload_modules_file": "preload",
        "log_to_file": True,
        "on_dependency_change": "ignore",
        "use_git_change_detection": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    pytest = [
        'addopts = ["--import-mode=importlib"]',
        'pythonpath = ["."]',
        "trio_mode = true",
        # hypothesis and pytest_trio are there already when pytest would rewrite their assertions.
        'filterwarnings = ["error", "ignore::pytest.PytestAssertRewriteWarning"]',
    ]
    (folder / "preload").write_text("\n".join(PRELOAD))
    (folder / "pyproject.toml").write_text(
        "\n".join(["[tool.mutmut]", *lines, "", "[tool.pytest.ini_options]", *pytest, ""])
    )
    return folder


def _sample(folder: Path, count: int, seed: int) -> list[str]:
    every = [name for ends in _ends(folder).values() for name in ends]
    return random.Random(seed).sample(every, min(count, len(every)))


def _ends(folder: Path) -> dict[str, dict[str, int | None]]:
    """By module: each of its changes, and how the tests ended with it (None: not tried)."""
    mutants = folder / "mutants"
    return {
        str(path.relative_to(mutants)).removesuffix(".py.meta").replace("/", "."): json.loads(path.read_text())[
            "exit_code_by_key"
        ]
        for path in sorted(mutants.rglob("*.meta"))
    }


def _tell(name: str) -> None:
    from mutmut.stats import status_by_exit_code  # noqa: PLC0415 - it wants to be in a folder of its own

    total: Counter[str] = Counter()
    for module, ends in _ends(WORK / name).items():
        if BROKEN in ends.values():
            raise SystemExit(f"{module}: pytest itself did not run; look into {WORK / name}/mutants/mutmut-debug.log")
        counts = Counter(status_by_exit_code[end] for end in ends.values())
        total += counts
        print(_row(module, counts))
    print(_row(f"{name}, together", total))


def _row(name: str, counts: Counter[str]) -> str:
    caught, tried = sum(counts[end] for end in CAUGHT), counts.total() - counts["not checked"]
    parts = ", ".join(f"{count} {end}" for end, count in sorted(counts.items()) if end != "killed")
    return f"{name:<40} {caught:>5} of {tried:<5} {100 * caught / tried if tried else 0:5.1f} %  {parts}"


def _show(name: str) -> int:
    folder = WORK / name
    listed = subprocess.run(["mutmut", "results"], cwd=folder, check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        mutant, _, end = line.strip().partition(": ")
        if end in {"survived", "no tests"}:
            print(f"# {end}: {mutant}", flush=True)
            subprocess.run(["mutmut", "show", mutant], cwd=folder, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
