"""The device's own log, drained, checked and matched: who used the device besides us?

A YubiHSM logs the commands it is told to log (`command-audit`), 62 entries at most, each chained to the one before by
SHA-256.  Before a logged command leaves, it is written down here; when the log is drained, every entry must be one that
was written down, in order, and every one that was written down must be there.  What does not fit becomes a notice.

    FOLDER/yubihsm-SERIAL.log       every entry ever seen, 32 bytes each as the device gave it; durable before the
                                    device is told to forget them. The last one is where the chain goes on
    FOLDER/yubihsm-SERIAL.sent      commands that may be logged and were not seen in the log yet: 16-byte rows
    FOLDER/yubihsm-SERIAL.notices   one JSON line a notice

    row   0         1           3            5           7           9          16
          +---------+-----------+------------+-----------+-----------+----------+
          | command | length u16| session u16| target u16| second u16| zeros    |     ffff where unknown
          +---------+-----------+------------+-----------+-----------+----------+

`.sent` survives the death of the process (not of the machine): a worker that is killed leaves no false alarm.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from openk_hsm import journal
from openk_hsm.errors import HsmError
from openk_hsm.seam import Notice
from openk_hsm.yubihsm.entries import ENTRY, LOGINS, NOWHERE, ROW, Entry, Sent
from openk_hsm.yubihsm.matching import explain

CAPACITY: Final = 62
DRAIN_AT: Final = 40
"""Logged commands after which the log is drained: well before 62, as draining and other parties add entries."""
_MOST_NOTICES: Final = 1000
_MOST_SHOWN: Final = 6
"""Entries that one notice describes."""


class DeviceLog:
    """One device's log. Without a folder it forgets everything at the end of the process."""

    def __init__(self, folder: Path | None, serial: str, authentication_key: int) -> None:
        self._folder = folder
        self._stem = f"yubihsm-{serial}"
        self._key = authentication_key
        self._logged: frozenset[int] | None = None
        self._forced = False
        self._sent: list[Sent] = []
        self._notices: list[Notice] = []
        self._unlogged = (0, 0)
        self.last: Entry | None = None
        self.seen = 0
        """Entries seen since this process began."""
        self._row_file = -1
        if folder is not None:
            self._load(folder)

    # --- what we do ---

    @property
    def follows(self) -> bool:
        """Whether the device logs anything."""
        return bool(self._logged)

    def learn(self, logged: frozenset[int], *, forced: bool = False) -> None:
        """Which commands the device is told to log. Until then all that is sent may be logged, or not; where audit is
        forced that stays so for all others (devices differ)."""
        self._logged = logged
        self._forced = forced
        self._sent = [sent for sent in self._sent if forced or sent.command in logged]
        for sent in self._sent:
            sent.sure = sent.command in logged and not sent.late
        self._rewrite()

    @property
    def due(self) -> bool:
        return len(self._sent) >= DRAIN_AT

    def sends(self, command: int, length: int, session: int, target: int, second: int = NOWHERE) -> Sent | None:
        """Write a command down before it leaves; None where the device does not log that."""
        sure = self._logged is not None and command in self._logged
        if not sure and self._logged is not None and not self._forced:
            return None
        sent = Sent(command, length, session, target, second, sure=sure)
        if self._row_file >= 0:
            os.pwrite(self._row_file, sent.pack(), len(self._sent) * ROW.size)
        self._sent.append(sent)
        return sent

    # --- what the device says ---

    def take(self, boots: int, logins: int, entries: Sequence[Entry]) -> int | None:
        """Check and keep what the device's log holds; durable on return. The number to discard up to, None for
        nothing."""
        self._note_unlogged(boots, logins)
        fresh: Sequence[Entry] = ()
        adopted = False
        if entries:
            fresh, adopted = self._chain(entries)
        self._judge(fresh, adopted=adopted)  # first: a crash behind it tells twice, a crash before it not too little
        self._archive(fresh)
        if entries:
            self.last = entries[-1]
            self.seen += len(fresh)
        self._rewrite()
        return entries[-1].number if entries else None

    def _judge(self, fresh: Sequence[Entry], *, adopted: bool) -> None:
        """`adopted`: what is there is older than we are, and nobody's fault."""
        explained = explain(self._sent, fresh)
        self._sent = explained.open
        if not adopted:
            self._tell_strangers(explained.strangers)
            for sent in explained.missing:
                text = f"the log lacks a command of ours: {sent.command:#04x} on object {sent.target}"
                self._tell(text, alarm=True)

    def _chain(self, entries: Sequence[Entry]) -> tuple[Sequence[Entry], bool]:
        """The entries that are new, their chain verified; and whether this device's log is seen for the first time."""
        last = self.last
        digest = entries[0].digest
        fresh, begins = entries, False
        if last is None:
            begins = True
        else:
            known = [at for at, entry in enumerate(entries) if entry.raw == last.raw]
            if known:
                fresh = entries[known[0] + 1 :]
            elif entries[0].is_reset:
                self._tell("the device was reset: all its objects are gone", alarm=True)
                begins = True
            elif entries[0].number == (last.number + 1) & 0xFFFF:
                if not entries[0].follows(last.digest):
                    self._tell(f"the log's chain is broken at entry {entries[0].number}", alarm=True)
            else:
                lost = (entries[0].number - last.number - 1) & 0xFFFF
                self._tell(f"{lost} entries of the device's log are missing after entry {last.number}", alarm=True)
                for sent in self._sent:
                    sent.answered, sent.loose = None, True
            digest = entries[0].digest
        for entry in entries[1:]:
            if not entry.follows(digest):
                self._tell(f"the log's chain is broken at entry {entry.number}", alarm=True)
            digest = entry.digest
        return fresh, begins and last is None

    def _tell_strangers(self, entries: Sequence[Entry]) -> None:
        """One notice for each of those who used the device besides us."""
        theirs: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.is_boot:
                self._tell(f"the device was started again ({entry.describe()})", alarm=False)
            elif not entry.is_reset:
                theirs.setdefault(self._who(entry), []).append(entry)
        for who, found in theirs.items():
            shown = "; ".join(entry.describe() for entry in found[:_MOST_SHOWN])
            more = f"; and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
            self._tell(f"{who}: {shown}{more}", alarm=True)

    def _who(self, entry: Entry) -> str:
        if entry.command in LOGINS:
            failed = "" if entry.result & 0x80 else " and failed"
            return f"somebody else opened a session with authentication key {entry.target}{failed}"
        if entry.session == self._key:
            return "somebody else used openk's authentication key"
        return "somebody else used the device"

    def _note_unlogged(self, boots: int, logins: int) -> None:
        before_boots, before_logins = self._unlogged
        if boots > before_boots or logins > before_logins:
            text = f"the log was full: {boots} starts of the device and {logins} logins were not logged"
            self._tell(text, alarm=False)
        self._unlogged = (boots, logins)

    # --- notices ---

    def notices(self, after: int) -> list[Notice]:
        return [notice for notice in self._notices if notice.number > after]

    def _tell(self, text: str, *, alarm: bool) -> None:
        at = int(time.time() * 1000)
        number = max(at, self._notices[-1].number + 1 if self._notices else 1)
        notice = Notice(number, at, alarm, text)
        journal.log("error" if alarm else "warning", "device log", text=text)
        self._notices.append(notice)
        del self._notices[:-_MOST_NOTICES]
        if self._folder is not None:
            row = {"number": notice.number, "at": notice.at, "alarm": alarm, "text": text}
            _append(self._path("notices"), json.dumps(row).encode() + b"\n")

    # --- files ---

    def _path(self, kind: str) -> Path:
        if self._folder is None:
            raise RuntimeError("a log without a folder has no files")
        return self._folder / f"{self._stem}.{kind}"

    def _load(self, folder: Path) -> None:
        try:
            self.last = _last_entry(self._path("log"))
            self._notices = _load_notices(self._path("notices"))
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._row_file = os.open(self._path("sent"), flags, 0o600)
            rows = os.read(self._row_file, ROW.size * CAPACITY * 4)
        except OSError as error:
            raise HsmError(f"the device's log cannot be kept in {folder}: {error.strerror}") from None
        for at in range(0, len(rows) - len(rows) % ROW.size, ROW.size):
            command, length, session, target, second = ROW.unpack_from(rows, at)
            if command:
                self._sent.append(Sent(command, length, session, target, second, loose=True))

    def _archive(self, entries: Sequence[Entry]) -> None:
        if self._folder is not None and entries:
            _append(self._path("log"), b"".join(entry.raw for entry in entries))

    def _rewrite(self) -> None:
        if self._row_file >= 0:
            rows = b"".join(sent.pack() for sent in self._sent)
            os.pwrite(self._row_file, rows, 0)
            os.ftruncate(self._row_file, len(rows))

    def close(self) -> None:
        if self._row_file >= 0:
            os.close(self._row_file)
            self._row_file = -1


def _last_entry(path: Path) -> Entry | None:
    """A tail that was cut by a crash was never confirmed to the device: it will come again."""
    if not path.exists():
        return None
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        whole = size - size % ENTRY.size
        if whole != size:
            file.truncate(whole)
        if not whole:
            return None
        file.seek(whole - ENTRY.size)
        return Entry.parse(file.read(ENTRY.size))


def _load_notices(path: Path) -> list[Notice]:
    found: list[Notice] = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                found.append(Notice(int(row["number"]), int(row["at"]), bool(row["alarm"]), str(row["text"])))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue  # cut by a crash, or harmed with the disk
    return found[-_MOST_NOTICES:]


def _append(path: Path, data: bytes) -> None:
    """Durable on return. Raises HsmError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HsmError(f"{path} cannot be written: {error.strerror}") from None
