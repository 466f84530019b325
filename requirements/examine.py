"""What can be known of the dependencies without a network: `python -m requirements.examine`, a step of ./check.

Every entry of the locks is one version with its files' hashes; what is installed is that and nothing else; every
licence is one of those allowed. A known weakness only the index can tell: ../audit-dependencies asks it."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from typing import Final

from packaging.utils import canonicalize_name

from requirements.locks import HERE, Locked, LockError, installed, license_of, read_lock

OURS: Final = frozenset({"openk", "openkd"})
_PERMISSIVE: Final = frozenset(
    {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "PSF-2.0", "any-OSI"}
)
"""May be shipped with openk, which is Apache-2.0. any-OSI (apsw): under whichever approved licence its user chooses."""
ALLOWED: Final = {"runtime": _PERMISSIVE, "dev": _PERMISSIVE | {"MPL-2.0"}}
"""SPDX ids by lock file. MPL-2.0 asks for its own files' source only; what is under it here is never shipped."""


def find_faults(name: str, locked: list[Locked]) -> list[str]:
    """What is wrong with the entries of the lock file `name`, as installed here."""
    faults: list[str] = []
    for one in locked:
        if not one.here:
            continue
        found = installed(one.name)
        if found is None:
            faults.append(f"{one.name} is locked and not installed: run requirements/install dev")
            continue
        if found.version != one.version:
            faults.append(f"{one.name} is locked as {one.version}, installed is {found.version}")
        told = license_of(one.name, found)
        if not is_allowed(told, ALLOWED[name]):
            faults.append(f"{one.name} {one.version} is under {told or 'no licence that it tells'}: see ALLOWED")
    return faults


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression of ids joined by OR, or by AND, can be met; mixed ones are for a person to judge."""
    for joint, enough in ((" OR ", any), (" AND ", all)):
        if joint in expression:
            return enough(part in allowed for part in expression.split(joint))
    return expression in allowed


def find_strangers(locked: list[Locked]) -> list[str]:
    """Packages in this environment that are in no lock."""
    names = {one.name for one in locked} | OURS
    here = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    return [f"{name} is installed and not locked" for name in sorted(here - names)]


def main() -> int:
    """0: nothing to complain of; 1: something."""
    faults: list[str] = []
    for name in ALLOWED:
        try:
            locked = list(read_lock(HERE / f"{name}.txt"))
        except LockError as error:
            faults.append(str(error))
            continue
        faults += find_faults(name, locked)
        if name == "dev":
            faults += find_strangers(locked)
        elsewhere = [f"{one.name} {one.version}" for one in locked if not one.here]
        files = sum(len(one.hashes) for one in locked)
        print(f"{name}: {len(locked)} packages, {files} files; not for this platform: {', '.join(elsewhere) or 'none'}")
    for fault in dict.fromkeys(faults):
        print(f"  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
