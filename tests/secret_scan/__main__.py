"""Has a secret been committed? `python -m tests.secret_scan [--history]`; see README.md beside this file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.secret_scan.scan import ALLOWED, committed, judge, read_allowed, search, search_history

_ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing; 1: something that is not allowed, or allowed and gone."""
    parser = argparse.ArgumentParser(prog="python -m tests.secret_scan", description="Look for committed secrets.")
    parser.add_argument("--history", action="store_true", help="in all that was ever committed, not only in what is there")
    given = parser.parse_args(arguments)
    found = search_history(_ROOT) if given.history else search(committed(_ROOT), _ROOT)
    rest, unmet = judge(found, read_allowed())
    for one in rest:
        place = one.path if given.history else f"{one.path}:{one.line}"
        print(f"{place}: {one.kind} {one.digest}")
    if rest:
        print(f"If one is a secret: it is known now; revoke it, then take it out. If it is none: {ALLOWED.name} says how.")
    if not given.history:
        for line in unmet:
            print(f"{ALLOWED.name}: {line}: is not found any more: take it out")
    print(f"{len(found)} found, {len(found) - len(rest)} of them allowed")
    return 1 if rest or (unmet and not given.history) else 0


if __name__ == "__main__":
    sys.exit(main())
