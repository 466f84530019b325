"""Whether a locked package has a known weakness, by pip-audit: the part of ../audit-dependencies that needs a net."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final, cast

from requirements.locks import HERE

NONE, KNOWN, UNKNOWN = 0, 1, 2
"""Exit statuses: every package was looked up and nothing is known; something is; not every one could be looked up."""
_SHOWN: Final = 5


def judge(document: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Of pip-audit's JSON: what is known, and what was not looked up, each with its reason. pip-audit itself calls a
    package that the service does not know "skipped", and the whole a success."""
    known: list[str] = []
    skipped: list[str] = []
    for row in cast("Sequence[Mapping[str, object]]", document["dependencies"]):
        if "skip_reason" in row:
            skipped.append(f"{row['name']}: {row['skip_reason']}")
        for weakness in cast("Sequence[Mapping[str, object]]", row.get("vulns", ())):
            fixed = ", ".join(cast("Sequence[str]", weakness.get("fix_versions", ()))) or "no version yet"
            known.append(f"{row['name']} {row['version']}: {weakness['id']}, mended in {fixed}")
    return known, skipped


def ask(name: str) -> int:
    """Look up a lock file's packages; prints what came out."""
    command = ["pip-audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
    run = subprocess.run([*command, "-r", str(HERE / f"{name}.txt")], capture_output=True, text=True, check=False)
    try:
        known, skipped = judge(json.loads(run.stdout))
    except (ValueError, KeyError):
        last = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
        print(f"{name}: NOT AUDITED: the advisory service did not answer: {last[0][:300]}")
        return UNKNOWN
    for line in known:
        print(f"{name}: {line}")
    if skipped:
        print(f"{name}: NOT AUDITED: {len(skipped)} packages could not be looked up, the first of them:")
        print("".join(f"  {line}\n" for line in skipped[:_SHOWN]), end="")
    elif not known:
        print(f"{name}: no known weakness")
    return KNOWN if known else UNKNOWN if skipped else NONE


def main() -> int:
    """KNOWN outweighs UNKNOWN."""
    found = {ask(name) for name in ("runtime", "dev")}
    return KNOWN if KNOWN in found else max(found)


if __name__ == "__main__":
    sys.exit(main())
