"""Entries of a YubiHSM's log, and the commands of ours that must be among them.

0         2         3          5               7              9              11       12        16          32
+---------+---------+----------+---------------+--------------+--------------+--------+---------+-----------+
| number  | command | length   | session's     | target's id  | second id    | result | tick    | digest    |
| u16     | u8      | u16      | key id u16    | u16          | u16          | u8     | u32     | 16 bytes  |
+---------+---------+----------+---------------+--------------+--------------+--------+---------+-----------+
digest = SHA-256(bytes 0..16 | digest of the entry before)[:16]
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from openk_hsm.errors import HsmError

ENTRY: Final = struct.Struct(">HBHHHHBL16s")
NOWHERE: Final = 0xFFFF
ROW: Final = struct.Struct(">BHHHH7x")
LOGINS: Final = frozenset({0x03, 0x04})
_BOOT: Final = 0x00
_RESET: Final = 0xFF


@dataclass(slots=True)
class Sent:
    """A command of ours. `answered`: the device's answer code (command + 0x80, or its error), None while unknown:
    then it may be missing in the log. `loose`: its target is not known either. `late`: the log was drained since.
    `sure`: the device logs such commands; else it only may."""

    command: int
    length: int
    session: int
    target: int
    second: int
    answered: int | None = None
    loose: bool = False
    late: bool = False
    sure: bool = True

    def pack(self) -> bytes:
        return ROW.pack(self.command, self.length, self.session, self.target, self.second)


@dataclass(frozen=True, slots=True)
class Entry:
    number: int
    command: int
    length: int
    session: int
    target: int
    second: int
    result: int
    tick: int
    digest: bytes
    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Entry:
        number, command, length, session, target, second, result, tick, digest = ENTRY.unpack(raw)
        return cls(number, command, length, session, target, second, result, tick, digest, raw)

    def follows(self, digest: bytes) -> bool:
        """Whether its digest is chained to the entry with that digest."""
        return sha256(self.raw[:16] + digest).digest()[:16] == self.digest

    @property
    def is_boot(self) -> bool:
        return self.command == _BOOT and self.session == NOWHERE and self.length == 0

    @property
    def is_reset(self) -> bool:
        return self.command == _RESET and self.session == NOWHERE

    def describe(self) -> str:
        """For people, in a notice."""
        if self.is_boot:
            return f"entry {self.number}"
        by = "nobody's session" if self.session == NOWHERE else f"authentication key {self.session}"
        on = "" if self.target == NOWHERE else f" on object {self.target}"
        failed = "" if self.result & 0x80 else f", refused with code {self.result:#04x}"
        return f"entry {self.number}: command {self.command:#04x}{on} by {by}{failed}"


def parse_entries(answer: bytes | memoryview) -> tuple[int, int, list[Entry]]:
    """Unlogged boots, unlogged logins, entries (oldest first) of a GET LOG ENTRIES answer. Raises HsmError."""
    if len(answer) < 5 or len(answer) != 5 + ENTRY.size * answer[4]:
        raise HsmError("the device's log has an impossible length")
    boots, logins = struct.unpack_from(">HH", answer)
    rows = bytes(answer[5:])
    return boots, logins, [Entry.parse(rows[at : at + ENTRY.size]) for at in range(0, len(rows), ENTRY.size)]


def fits(entry: Entry, sent: Sent) -> bool:
    """Whether the entry may be that command's."""
    if (entry.command, entry.length, entry.session) != (sent.command, sent.length, sent.session):
        return False
    if sent.answered is not None and entry.result != sent.answered:
        return False
    return sent.loose or NOWHERE in {sent.target, entry.target} or entry.target == sent.target
