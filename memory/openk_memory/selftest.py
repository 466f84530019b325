"""At every start: do the recipes hold on this kernel, in this interpreter? A few milliseconds, before the first secret.

The kernel is asked (proc_pid_smaps(5)), not believed: VmFlags says `lo` for locked, `dd` for kept out of dumps, `dc`
for not inherited by a fork, `wf` for wiped in a fork. Only public bytes are written.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openk_memory import kernel
from openk_memory.errors import LockedMemoryError, Unsupported
from openk_memory.handoff import HandOff
from openk_memory.kernel import PAGE
from openk_memory.pool import Pool
from openk_memory.region import Kind, Region, Reservation, best_kind

FLAGS: Final = {Kind.SECRET: {"lo", "dd", "dc"}, Kind.LOCKED: {"lo", "dd", "wf"}}
PATTERN: Final = 0xA5
POOL_BYTES: Final = 32 * PAGE


@dataclass(frozen=True, slots=True)
class Mapping:
    """One entry of /proc/self/smaps: addresses, permissions, flags, and how many bytes are locked and present."""

    start: int
    end: int
    permissions: str
    flags: frozenset[str]
    locked: int
    resident: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What held: for the log at start."""

    kind: Kind
    checks: tuple[str, ...]


def run() -> Findings:
    """Raises Unsupported naming the recipe that does not hold, or LockLimitTooLow; the process must not go on."""
    checks: tuple[tuple[str, Callable[[], None]], ...] = (
        ("a region is locked, not dumped, not inherited, and guarded", check_region),
        ("a region is wiped when it is released", check_wipe),
        ("a pool wipes, and keeps slots that are still looked into", check_pool),
        ("a hand-off region is shared, sealed, locked, not dumped and not inherited", check_handoff),
    )
    for _, check in checks:
        check()
    return Findings(best_kind(), tuple(name for name, _ in checks))


def mappings() -> list[Mapping]:
    found: list[Mapping] = []
    entry: dict[str, str] = {}
    start = end = 0
    permissions = ""
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            head, _, rest = line.partition(" ")
            if head.endswith(":"):
                entry[head[:-1]] = rest.strip()
                if head == "VmFlags:":  # the last line of an entry
                    sizes = (int(entry[name].split()[0]) * 1024 for name in ("Locked", "Rss"))
                    found.append(Mapping(start, end, permissions, frozenset(rest.split()), *sizes))
            else:
                start, end = (int(part, 16) for part in head.split("-"))
                permissions = rest.split()[0]
    return found


def check_mapping(address: int, wanted: set[str], name: str) -> None:
    """Raises Unsupported unless the mapping at `address` has all `wanted` flags, is present, and has guards around."""
    entries = mappings()
    for index, entry in enumerate(entries):
        if entry.start <= address < entry.end:
            if lacking := wanted - entry.flags:
                raise Unsupported(f"{name}: the kernel's flags lack {', '.join(sorted(lacking))}")
            if entry.resident != entry.end - entry.start:
                raise Unsupported(f"{name}: {entry.resident} of {entry.end - entry.start} bytes are present")
            for beside in entries[index - 1 : index] + entries[index + 1 : index + 2]:
                if beside.permissions != "---p":
                    raise Unsupported(f"{name}: there is no guard page beside it")
            return
    raise Unsupported(f"{name}: not mapped")


def check_region() -> None:
    region = Region(PAGE)
    try:
        check_mapping(region.address, FLAGS[region.kind], f"locked region ({region.kind})")
    finally:
        region.release()


def check_wipe() -> None:
    reservation = Reservation(PAGE)
    reservation.commit(PAGE)
    kernel.fill(reservation.address, PATTERN, PAGE)
    if ctypes.c_ubyte.from_address(reservation.address + PAGE - 1).value != PATTERN:
        raise Unsupported("locked region: what was written cannot be read back")
    reservation.retire()
    if any(kernel.view_of(reservation.address, PAGE)):
        raise Unsupported("locked region: the wipe left bytes")


def check_pool() -> None:
    pool = Pool(POOL_BYTES)
    lease = pool.lease(16)
    lease.view[:] = bytes([PATTERN] * 16)
    address, kept = lease.address, lease.view[:8]
    check_mapping(address, FLAGS[pool.kind], f"pool ({pool.kind})")
    lease.release()
    if any(kept):
        raise Unsupported("pool: the wipe left bytes")
    with pool.lease(16) as other:
        if other.address == address:
            raise Unsupported("pool: a slot was given out while a view of it lives; this needs CPython")
    del kept
    pool.retire()


def check_handoff() -> None:
    ours = HandOff.create(PAGE)
    try:
        check_mapping(ours.address, {"lo", "dd", "dc", "sh"}, "hand-off region")
        theirs = HandOff.attach(os.dup(ours.fd), PAGE)
        try:
            ours.view[0] = PATTERN
            if theirs.view[0] != PATTERN:
                raise LockedMemoryError("hand-off region: the two sides do not see the same bytes")
        finally:
            theirs.close()
    finally:
        ours.close()
