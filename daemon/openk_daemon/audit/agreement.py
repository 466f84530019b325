"""Whether the records in the store are those which the log says were written last. Pure but for the store's reads.

Each audit record tells of its writes: kind, id, version, SHA-256 of the body. A record that was edited, moved,
rolled back, removed or added behind the daemon's back does not agree with the newest entry that names it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256

from openk_daemon.audit.examination import read_entries
from openk_daemon.audit.seam import AuditDamaged
from openk_daemon.store.seam import LocalStore, Record

_STEP = 256


@dataclass(frozen=True, slots=True)
class Disagreement:
    """`entry` is the log entry that says otherwise, -1 when none tells of the record at all."""

    kind: str
    id: bytes
    entry: int
    reason: str


@dataclass(slots=True)
class _Written:
    entry: int
    version: int
    digest: str | None
    seen: bool = False


def disagreements(store: LocalStore, first: int = 0, unaudited: Collection[str] = ()) -> Iterator[Disagreement | None]:
    """Compare the store with the log from entry `first` on; yields None now and then, so that others get
    their turn. With `first` 0, records that no entry tells of are named too.

    `unaudited`: kinds that are written without audit records (counters, intents). Nothing may be committed
    meanwhile. Raises StoreError and AuditDamaged where one of the two cannot be read."""
    written: dict[tuple[str, bytes], _Written] = {}
    size = store.log_size()
    for begin in range(first, size, _STEP):
        for index, entry in enumerate(read_entries(store, begin, min(_STEP, size - begin)), begin):
            for kind, id_, version, digest in _writes_of(entry, index):
                if kind in unaudited:
                    continue  # such a record may begin with a request, and be written again without one
                written[kind, id_] = _Written(index, version, digest)
        yield None
    for record in _records(store):
        if record is None:
            yield None
        elif record.kind not in unaudited:
            yield _compare(record, written.get((record.kind, record.id)), whole=first == 0)
    for (kind, id_), last in written.items():
        if not last.seen and last.digest is not None:
            yield Disagreement(kind, id_, last.entry, "the record is missing")


def _writes_of(entry: bytes, index: int) -> list[tuple[str, bytes, int, str | None]]:
    if b'"writes":[' not in entry:
        return []
    try:
        writes = json.loads(entry)["writes"]
        return [(str(write["kind"]), bytes.fromhex(write["id"]), write["version"], write["sha256"]) for write in writes]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AuditDamaged(f"entry {index} of the log is not a record that openk writes") from error


def _records(store: LocalStore) -> Iterator[Record | None]:
    for kind in store.kinds().result():
        after = b""
        full = True
        while full:
            page = store.query(kind, after=after, limit=_STEP).result()
            yield from page
            yield None
            full = len(page) == _STEP
            after = page[-1].id if full else b""


def _compare(record: Record, last: _Written | None, *, whole: bool) -> Disagreement | None:
    if last is None:
        reason = "no entry of the log tells of the record"
        return Disagreement(record.kind, record.id, -1, reason) if whole else None
    last.seen = True
    if last.digest is None:
        return Disagreement(record.kind, record.id, last.entry, "the record was deleted and is here")
    if record.version != last.version:
        reason = f"the record has version {record.version} instead of {last.version}"
        return Disagreement(record.kind, record.id, last.entry, reason)
    if sha256(record.body).hexdigest() != last.digest:
        return Disagreement(record.kind, record.id, last.entry, "the record's body was changed")
    return None
