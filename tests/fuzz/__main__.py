"""Fuzz openk: `python -m tests.fuzz [TARGET...] [--seconds N] [--keep FOLDER]`; see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.catalogue import MODULES
from tests.fuzz.target import FOUND

_ROOT = Path(__file__).parents[2]
_OPTIONS = (
    "-timeout=25",  # seconds after which an input counts as a hang: the slowest takes 0.1, and the machine may be busy
    "-rss_limit_mb=2048",
    "-artifact_prefix=found-",
    "-print_final_stats=1",
)
_MISSING = 3
"""Exit status where there is no atheris for this platform."""
_MEMORY = "/dev/shm"
_BESIDE = min(2, os.cpu_count() or 1)
"""Targets at a time."""
_SHOWN = 40
"""Lines of libFuzzer's report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing found; 1: something was; 2: wrong usage; 3: not run, for want of atheris."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what openk reads from outside.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all of them, or some of: {', '.join(MODULES)}")
    parser.add_argument(
        "--seconds", type=int, metavar="N", help="go on for so long with each target (else: so many runs)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the corpus grows from run to run")
    given = parser.parse_args(arguments)
    strange = [name for name in given.targets if name not in MODULES]
    if strange:
        parser.error(f"no target is named {strange[0]}; there are: {', '.join(MODULES)}")
    try:
        import atheris  # noqa: F401, PLC0415 - asks only whether it is there
    except ImportError:
        machine = f"{os.uname().machine}, Python {sys.version_info.major}.{sys.version_info.minor}"
        print(f"NOT RUN: no atheris on {machine} (requirements/dev.in says where it has wheels)", file=sys.stderr)
        return _MISSING
    names: list[str] = given.targets or list(MODULES)
    with ThreadPoolExecutor(_BESIDE) as pool:
        found = [
            name
            for name, good in zip(names, pool.map(_Fuzz(given.seconds, given.keep), names), strict=True)
            if not good
        ]
    if found:
        print(f"found something in: {', '.join(found)}")
    return 1 if found else 0


@dataclass(frozen=True)
class _Fuzz:
    """With `seconds` the seed is the clock's; else runs and seed are fixed."""

    seconds: int | None
    keep: Path | None

    def __call__(self, name: str) -> bool:
        """Whether nothing was found."""
        memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="openk-fuzz-", dir=memory) as temporary:
            folder = self.keep.absolute() / name if self.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            before = set(folder.glob("found-*"))
            begun = time.monotonic()
            run = self._run(name, folder, temporary)
            if run.returncode == 0:
                done = run.stdout.rpartition("stat::number_of_executed_units:")[2].split() or ["?"]
                print(f"{name:15} ok      {done[0]:>8} runs {time.monotonic() - begun:6.1f} s", flush=True)
                return True
            told = [line for line in run.stdout.splitlines()[-_SHOWN:] if not re.match(r"#\d+\s+(NEW|REDUCE) ", line)]
            for path in sorted(set(folder.glob("found-*")) - before):
                told.append(f"input ({path.name}): {path.read_bytes()!r}")
                told.append(f"once cured, keep it: tests/fuzz/{FOUND.name}/{name}/WHAT-IT-SHOWED")
            text = "".join(f"    {line}\n" for line in told)
            print(f"{name:15} FAILED  (libFuzzer's exit status {run.returncode})\n{text}", end="", flush=True)
            return False

    def _run(self, name: str, folder: Path, temporary: str) -> subprocess.CompletedProcess[str]:
        limit = f"-max_total_time={self.seconds}" if self.seconds else "-seed=1"
        command = [sys.executable, "-m", "tests.fuzz.engine", name, str(folder), limit, *_OPTIONS]
        environment = {**os.environ, "TMPDIR": temporary, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )


if __name__ == "__main__":
    sys.exit(main())
