"""What a worker stands on before it loads anything: its user, how much it may lock, in what kind of memory, its
allocator. Each is told with what to change; what would fail later in the middle of work is refused now.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from openk_hsm import journal
from openk_memory import environment
from openk_memory.hardening import Measure, State, attempt, forbid_core, forbid_dumps
from openk_memory.limits import allow_locking
from openk_memory.region import Kind, best_kind, why_not_secret

OWN: Final = 256 << 10
"""Bytes that a worker locks for itself: the PIN during a login, a YubiHSM's session."""
HANDED: Final = 1 << 20
"""Bytes of the hand-off region that the daemon brings, unless its `handoff_bytes` says otherwise."""


def take_footing() -> None:
    """Before the module is loaded. Raises LockLimitTooLow; Unsupported where limits cannot be read."""
    if os.geteuid() == 0:
        journal.log("warning", "user.root", text=_ROOT)
    fault = allow_locking(OWN + HANDED)
    if fault is not None:
        raise fault
    if best_kind() is not Kind.SECRET:
        journal.log("warning", "memory.kind", kind=best_kind(), text=why_not_secret())
    missing = environment.missing({} if sys.flags.ignore_environment else os.environ)
    if missing:
        wanted = " ".join(f"{variable.name}={variable.value}" for variable in missing)
        detail = f"freed memory is not overwritten: start it with {wanted} in its environment, as the units do"
        journal.log("warning", "hardening.missing", measure="allocator", detail=detail)


def close_to_others() -> None:
    """For a command that is given the PIN and then ends: no core, no look into its memory by its user's other programs.
    Where that cannot be had it is said, and the command goes on."""
    for measure, act in ((Measure.NO_CORE, forbid_core), (Measure.NOT_DUMPABLE, forbid_dumps)):
        step = attempt(measure, act)
        if step.state is State.MISSING:
            journal.log("warning", "hardening.missing", measure=measure, detail=step.detail)


_ROOT: Final = (
    "openk-hsm runs as root: any flaw in the vendor's module is root's. Give it a user of its own: User= of the unit "
    "(openk-hsm@.service has one), or setpriv --reuid=openk-hsm --regid=openk-hsm --init-groups"
)
