"""`python -m bench`, from the checkout: one run, one table."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.daemon import raise_file_limit
from bench.report import save, table
from bench.result import Result, missing
from bench.rows import ROWS
from bench.stage import Stage, places

DISK = Path("/var/tmp")  # noqa: S108 - a real disk by the FHS, unlike /tmp; folders there are made by mkdtemp


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", default="", metavar="NAME,...", help=f"only these of: {', '.join(ROWS)}")
    parser.add_argument(
        "--smoke", action="store_true", help="a moment for each row: does it run? (the numbers mean nothing)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="for one measurement [2]")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, of which the median counts [5]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--dir", type=Path, default=DISK, help=f"a folder on the disk that counts [{DISK}]")
    parser.add_argument("--keep", action="store_true", help="leave the run's folder behind, with the daemons' logs")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.rows.split(",") if name and name not in ROWS]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every row ran (whatever the numbers are), 1 when one failed."""
    options = parse(arguments)
    seconds, rounds = (0.15, 1) if options.smoke else (options.seconds, options.rounds)
    wanted = [name for name in options.rows.split(",") if name] or list(ROWS)
    raise_file_limit()
    folder, memory = places(options.dir)
    results: list[Result] = []
    failed: list[str] = []
    try:
        with ExitStack() as stack:
            stage = Stage(folder, memory, seconds=seconds, rounds=rounds, stack=stack)
            for name in wanted:
                results += run(name, stage, failed)
    finally:
        if not options.keep:
            for place in filter(None, (folder, memory)):
                shutil.rmtree(place, ignore_errors=True)
    sys.stdout.write(f"\n{table(results)}\n")
    if options.keep:
        sys.stdout.write(f"\nLeft behind: {folder}\n")
    if options.json is not None:
        save(
            options.json,
            results,
            {"seconds": seconds, "rounds": rounds, "smoke": options.smoke, "cpus": os.cpu_count()},
        )
    for failure in failed:
        sys.stderr.write(f"bench: {failure}\n")
    return 1 if failed else 0


def run(name: str, stage: Stage, failed: list[str]) -> Sequence[Result]:
    """One row; what goes wrong in it must not cost the others."""
    begin = time.perf_counter()
    try:
        found = ROWS[name](stage)
    except Exception as error:  # noqa: BLE001 - told at the end, and in the exit status
        failed.append(f"{name}: {type(error).__name__}: {error}")
        found = [missing(name, name, "-", f"failed: {error}")]
    sys.stderr.write(f"{name}: {time.perf_counter() - begin:.1f} s\n")
    return found


if __name__ == "__main__":
    sys.exit(main())
