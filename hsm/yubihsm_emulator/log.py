import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from yubihsm_emulator.codes import NOBODY

CAPACITY: Final = 62
DIGEST_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit log, 32 bytes on the wire.

        0        2         3        5         7        9        11       12         16           32
        ┌────────┬─────────┬────────┬─────────┬────────┬────────┬────────┬──────────┬────────────┐
        │ number │ command │ length │ session │ target │ second │ result │ tick u32 │ digest     │
        │ u16    │ u8      │ u16    │ key u16 │ key    │ key    │ u8     │ 1/100 s  │ [16]       │
        └────────┴─────────┴────────┴─────────┴────────┴────────┴────────┴──────────┴────────────┘

    digest = SHA-256(the 16 bytes before it ‖ digest of the entry before), its first 16 bytes.
    """

    data: bytes
    digest: bytes

    @property
    def number(self) -> int:
        return int.from_bytes(self.data[:2], "big")

    @property
    def raw(self) -> bytes:
        return self.data + self.digest


@dataclass(frozen=True, slots=True)
class Event:
    """What an entry tells of one command."""

    command: int
    length: int
    session_key: int
    target_key: int = NOBODY
    second_key: int = NOBODY
    result: int = 0
    tick: int = 0

    def pack(self) -> bytes:
        """All but number and digest (14 bytes)."""
        return b"".join(
            value.to_bytes(size, "big")
            for value, size in (
                (self.command, 1),
                (self.length & 0xFFFF, 2),
                (self.session_key, 2),
                (self.target_key, 2),
                (self.second_key, 2),
                (self.result, 1),
                (self.tick & 0xFFFF_FFFF, 4),
            )
        )


BOOT: Final = Event(0, 0, NOBODY, 0, 0)
"""The entry of a power-up."""


class AuditLog:
    """The newest entries, at most 62, oldest first, each digest covering the one before.

    What there was no room for under force-audit is counted: `unlogged_boots`, `unlogged_logins`. `version` grows with
    every change.
    """

    def __init__(self, number: int, digest: bytes, entries: "list[Entry]", unlogged: tuple[int, int] = (0, 0)) -> None:
        """`number` and `digest` are those of the newest entry ever written."""
        self.number = number
        self.digest = digest
        self._entries = entries
        self.unlogged_boots, self.unlogged_logins = unlogged
        self.version = 0

    @classmethod
    def after_reset(cls, seed: bytes) -> "AuditLog":
        """A log of two entries: the mark of the reset and the boot. `seed` (32 random bytes) precedes the first."""
        log = cls(0, seed, [])
        log._append(b"\xff" * 14)
        log.append(BOOT)
        return log

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        return len(self._entries) >= CAPACITY

    def append(self, event: Event) -> None:
        """Writes one entry; when full, over the oldest."""
        self._append(event.pack())

    def discard(self, index: int) -> bool:
        """Forgets the entries up to and including the one numbered `index`; False where there is no such entry."""
        for position, entry in enumerate(self._entries):
            if entry.number == index:
                del self._entries[: position + 1]
                self.version += 1
                return True
        return False

    def count_boot(self) -> None:
        """A power-up there was no room for."""
        self.unlogged_boots = min(self.unlogged_boots + 1, 0xFFFF)
        self.version += 1

    def count_login(self) -> None:
        """A step of a session's beginning there was no room for."""
        self.unlogged_logins = min(self.unlogged_logins + 1, 0xFFFF)
        self.version += 1

    def _append(self, tail: bytes) -> None:
        self.number = (self.number + 1) & 0xFFFF
        data = self.number.to_bytes(2, "big") + tail
        self.digest = hashlib.sha256(data + self.digest).digest()[:DIGEST_SIZE]
        self._entries.append(Entry(data, self.digest))
        del self._entries[:-CAPACITY]
        self.version += 1
