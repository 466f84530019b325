"""Freeze a live process and look for secrets in all of it: every present page of every mapping, and every register.

How: PTRACE_SEIZE + PTRACE_INTERRUPT each thread (ptrace(2)), then read /proc/PID/mem, which also reads PROT_NONE pages;
present pages are those that /proc/PID/pagemap says are there, less those of a private mapping that still are the
file's own. The process runs on unharmed afterwards.

What it finds: the whole needle, any 8-byte piece of it (at needle offsets 0, 8, 16 ...), the same with the bytes
reversed (big numbers), hex and base64 of it, and what AES makes of it as a key (round keys, in either byte order).
What it cannot see: memfd_secret pages (nobody can; that is their point), the kernel's socket buffers, and pages swapped
out (locked memory never is).

Needs the right to trace: root, or the same user and a dumpable process.  A scan that finds nothing proves nothing until
it has found a planted leak in the same run: always scan a deliberately leaky process beside the good one.
"""

from __future__ import annotations

import base64
import ctypes
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.aes_schedule import traces

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
PIECE: Final = 8
BLOCK: Final = 16 << 20
OVERLAP: Final = 512  # longer than any pattern
PTRACE_DETACH: Final = 17
PTRACE_GETREGSET: Final = 0x4204
PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
WALL: Final = 0x40000000  # __WALL: threads too
REGISTER_SETS: Final = {"general": 1, "floating": 2, "vector": 0x202, "arm-vector": 0x405}  # NT_* of elf.h
PRESENT: Final = 1 << 63
OF_A_FILE: Final = 1 << 61
"""Of pagemap: a page of a file, or shared. In a private mapping: never written to, it is what the file is."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Hit:
    """One find. `needle` is its index in what was asked for; `form` raw, piece, reversed, hex, base64 or schedule."""

    needle: int
    form: str
    mapping: str
    """Path of the mapping, `[heap]`, `[stack]`, `anonymous`, or `registers: SET of thread TID`."""
    address: int
    locked: bool
    """In pages the process has locked (VmFlags `lo`): where secrets may be while they are in use."""

    @property
    def in_registers(self) -> bool:
        return self.mapping.startswith("registers")


@dataclass(frozen=True, slots=True)
class Mapping:
    start: int
    end: int
    name: str
    locked: bool
    private: bool = False


def scan(pid: int, needles: Sequence[bytes]) -> list[Hit]:
    """All places where a needle (at least 16 bytes, random) or a piece of one is found in process `pid`, frozen.

    Pieces that belong to one whole needle are one hit; what needles have in common counts for the first. Raises
    PermissionError if tracing is not allowed, ProcessLookupError if it is gone."""
    patterns = _patterns(needles)
    hits: list[Hit] = []
    with frozen(pid) as threads:
        for thread in threads:
            for name, block in registers(thread):
                where = Mapping(0, len(block), f"registers: {name} of thread {thread}", locked=False)
                hits += _search(where, 0, block, patterns, needles)
        everything = mappings(pid)
        if not everything:  # it has exited: that nothing is found must not look like a proof
            raise ProcessLookupError(pid)
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for mapping in everything:
                for address, block in present(pid, memory.fileno(), mapping):
                    hits += _search(mapping, address, block, patterns, needles)
    return sorted(set(hits), key=lambda hit: (hit.mapping, hit.address, hit.form))


def _patterns(needles: Sequence[bytes]) -> list[tuple[int, str, bytes]]:
    known = dict[bytes, tuple[int, str, bytes]]()
    for index, needle in enumerate(needles):
        for form, text in forms(needle):
            known.setdefault(text, (index, form, text))
    return list(known.values())


def unlocked(hits: Sequence[Hit]) -> list[Hit]:
    """Those in memory that is not locked. Registers count: leave them out yourself while work is in flight."""
    return [hit for hit in hits if not hit.locked]


def forms(needle: bytes) -> Iterator[tuple[str, bytes]]:
    """What to search for, each named."""
    if len(needle) < 2 * PIECE:
        raise ValueError("a needle has at least 16 bytes, or accidents look like leaks")
    for start in range(0, len(needle) - PIECE + 1, PIECE):
        piece = needle[start : start + PIECE]
        yield "piece", piece
        yield "reversed", piece[::-1]
        yield "hex", piece.hex().encode()
        yield "hex", piece.hex().upper().encode()
    if len(needle) == 16 or len(needle) >= 32:  # an AES-128 key, or one of 256 bits and what follows it
        for trace in traces(needle[:32]):
            yield "schedule", trace
    for skip in range(3):  # base64 of a text that has the needle at an offset of 0, 1 or 2 modulo 3
        aligned = needle[skip : skip + 12]
        yield "base64", base64.b64encode(aligned)
        yield "base64", base64.urlsafe_b64encode(aligned)


def _search(
    mapping: Mapping, base: int, block: bytes, patterns: Sequence[tuple[int, str, bytes]], needles: Sequence[bytes]
) -> Iterator[Hit]:
    for index, form, text in patterns:
        at = block.find(text)
        while at >= 0:
            needle = needles[index]
            start = at - needle.find(text) if form == "piece" else at
            whole = form == "piece" and start >= 0 and block[start : start + len(needle)] == needle
            if whole:
                yield Hit(index, "raw", mapping.name, base + start, mapping.locked)
            else:
                yield Hit(index, form, mapping.name, base + at, mapping.locked)
            at = block.find(text, at + 1)


# --- freezing ---


def _ptrace(request: int, thread: int, address: int | None = None, data: int | None = None) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def frozen(pid: int) -> Iterator[list[int]]:
    """All threads of `pid` stopped; their ids. Threads that start meanwhile are caught in further rounds."""
    caught: list[int] = []
    try:
        while fresh := [t for t in map(int, os.listdir(f"/proc/{pid}/task")) if t not in caught]:
            for thread in fresh:
                try:
                    _ptrace(PTRACE_SEIZE, thread)
                except ProcessLookupError:
                    continue  # it ended meanwhile
                caught.append(thread)
                _ptrace(PTRACE_INTERRUPT, thread)
                os.waitpid(thread, WALL)
        if not caught:
            raise ProcessLookupError(pid)
        yield caught
    finally:
        for thread in caught:
            try:
                _ptrace(PTRACE_DETACH, thread)
            except ProcessLookupError:
                continue


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def registers(thread: int) -> Iterator[tuple[str, bytes]]:
    """The register sets this processor has."""
    for name, number in REGISTER_SETS.items():
        room = ctypes.create_string_buffer(16384)
        vector = _IoVec(ctypes.addressof(room), len(room))
        try:
            _ptrace(PTRACE_GETREGSET, thread, number, ctypes.addressof(vector))
        except OSError:
            continue  # a set of another architecture
        yield name, room.raw[: vector.length]


# --- reading ---


def mappings(pid: int) -> list[Mapping]:
    """Everything mapped, with names and whether it is locked (proc_pid_smaps(5))."""
    found: list[Mapping] = []
    start = end = 0
    name = ""
    private = False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head, _, rest = line.partition(" ")
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            private = rest[3:4] == "p"
            columns = rest.split(maxsplit=4)
            name = columns[4] if len(columns) > 4 else "anonymous"
        elif head == "VmFlags:":
            found.append(Mapping(start, end, name, locked="lo" in rest.split(), private=private))
    return found


def present(pid: int, memory: int, mapping: Mapping) -> Iterator[tuple[int, bytes]]:
    """Blocks of pages that are there, with their addresses; what the kernel refuses to read is skipped."""
    if mapping.name == "[vsyscall]":
        return
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        pages = array(
            "Q", os.pread(pagemap.fileno(), (mapping.end - mapping.start) // PAGE * 8, mapping.start // PAGE * 8)
        )
    for first, last in _runs(pages, PRESENT | OF_A_FILE if mapping.private else PRESENT):
        at, stop = mapping.start + first * PAGE, mapping.start + last * PAGE
        while at < stop:
            try:
                block = os.pread(memory, min(BLOCK, stop - at), at)
            except OSError:
                break  # memfd_secret, vvar: not readable by anyone
            if not block:
                break
            yield at, block
            at += len(block) if at + len(block) >= stop else max(PAGE, len(block) - OVERLAP)


def _runs(pages: array[int], mask: int) -> Iterator[tuple[int, int]]:
    """Ranges [first, last) of pages of whose bits in `mask` only PRESENT is set."""
    first = None
    for index, entry in enumerate(pages):
        if entry & mask == PRESENT:
            first = index if first is None else first
        elif first is not None:
            yield first, index
            first = None
    if first is not None:
        yield first, len(pages)
