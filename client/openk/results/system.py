"""What `system.*`, `policy.*` and `audit.*` return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openk.answers import Answer, Value


@dataclass(frozen=True, slots=True)
class Hello:
    """`caller`: who the kernel says this process is. `limits`: message_bytes, in_flight."""

    version: str
    caller: Answer
    limits: Answer


@dataclass(frozen=True, slots=True)
class Health:
    """`status`: ok, degraded or failed."""

    status: str
    components: Answer


@dataclass(frozen=True, slots=True)
class Course:
    """What a signal was, oldest first, None where it is not known. `now`: its newest reading. Of a week `values` are
    means, with `lows` and `highs` beside them."""

    signal: str
    unit: str
    summary: str
    now: float | None
    values: list[float | None]
    lows: list[float | None]
    highs: list[float | None]


@dataclass(frozen=True, slots=True)
class History:
    """`seconds` between two values; `end`: Unix time of the newest, 0 before the first."""

    seconds: int
    end: int
    signals: list[Course]


@dataclass(frozen=True, slots=True)
class Alert:
    """`since`: Unix time, while it is raised. `text`: what is so, and what to do."""

    alert: str
    severity: str
    raised: bool
    since: int | None
    signal: str
    value: float | None
    raise_at: float
    clear_at: float
    for_seconds: int
    text: str


@dataclass(frozen=True, slots=True)
class Alerts:
    """`cursor`: where the event stream is, for `system.events`."""

    alerts: list[Alert]
    cursor: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to the daemon. `number` counts from 1 since its start; `kind`: alert.raised, health.changed
    and so on; `at`: Unix time; `severity`: page, ticket or info; `subject`: the alert's name, or empty; `value`: of its
    signal.

    Iterators of clients add two of their own, with number 0: `events.lost` and `daemon.restarted`."""

    number: int
    kind: str
    at: int
    severity: str
    subject: str
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Events:
    """`cursor`: to go on with. `lost`: events in between that are not kept any more. `restarted`: the daemon has
    started anew since the cursor that was given."""

    events: list[Event]
    cursor: str
    lost: int
    restarted: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the daemon's configuration. `origin`: FILE:LINE, an environment variable, or default. `live`: a reload
    changes it, otherwise a restart."""

    key: str
    value: Value
    origin: str
    live: bool


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """`running` is in force, `files` is what the files say; None: not there."""

    key: str
    running: Value
    files: Value
    origin: str
    live: bool


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """With `mistakes` there are no changes: a reload would be refused."""

    changes: list[ConfigChange]
    mistakes: list[str]


@dataclass(frozen=True, slots=True)
class SealState:
    """`hsms`: those that logged in anew."""

    sealed: bool
    hsms: list[str]


@dataclass(frozen=True, slots=True)
class PolicyExplanation:
    allowed: bool
    policies: Sequence[str]
    errors: Sequence[str]
    flips: Sequence[str]
    facts: Answer


@dataclass(frozen=True, slots=True)
class PolicyEpoch:
    epoch: int
    policies: int


@dataclass(frozen=True, slots=True)
class AuditHead:
    """`checkpoint`: a C2SP tlog-checkpoint; `public`: the audit key, SubjectPublicKeyInfo DER; `algorithm`: what it is
    (ed25519, p-256, rsa-3072); `verifier_key`: the same key as C2SP tools take it."""

    checkpoint: str
    signed_size: int
    size: int
    public: bytes
    algorithm: str
    verifier_key: str


@dataclass(frozen=True, slots=True)
class AuditProof:
    """`hashes`: lower-case hex."""

    index: int
    size: int
    hashes: Sequence[str]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`entry`: JSON text."""

    index: int
    entry: str
