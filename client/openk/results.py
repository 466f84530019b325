"""What the typed methods return. Frozen; secrets in them are Secret and can be wiped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openk.answers import Answer, Value
from openk.secret import Secret


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
class Vault:
    """`created`: RFC 3339. `hsm`: the configured name of the HSM that its keys live on; empty from older daemons."""

    vault: str
    created: str
    hsm: str = ""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """`created`: RFC 3339. `uses`: None where the algorithm has no limit of safe uses: they are not counted."""

    version: int
    created: str
    uses: int | None


@dataclass(frozen=True, slots=True)
class KeySummary:
    key: str
    algorithm: str
    purpose: str
    protection: str
    version: int


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """`version`: the newest."""

    key: str
    algorithm: str
    purpose: str
    protection: str
    version: int
    versions: Sequence[KeyVersion]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`public`: SubjectPublicKeyInfo, DER; `pem`: the same as PEM."""

    algorithm: str
    public: bytes
    pem: str
    version: int


@dataclass(frozen=True, slots=True)
class Ciphertext:
    ciphertext: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Plaintext:
    plaintext: Secret
    version: int


@dataclass(frozen=True, slots=True)
class Signature:
    signature: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Mac:
    mac: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Verified:
    """It is valid: one that is not is an error (key.signature_invalid, key.mac_invalid), never False."""

    version: int


@dataclass(frozen=True, slots=True)
class Derived:
    derived: Secret
    version: int


@dataclass(frozen=True, slots=True)
class Wrapped:
    wrapped: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Unwrapped:
    output: Secret
    version: int


@dataclass(frozen=True, slots=True)
class DataKey:
    """`plaintext`: None where only the wrapped form was asked for."""

    wrapped: bytes
    plaintext: Secret | None
    version: int


@dataclass(frozen=True, slots=True)
class Shared:
    shared: Secret
    version: int


@dataclass(frozen=True, slots=True)
class Encapsulated:
    ciphertext: bytes
    shared: Secret
    version: int


@dataclass(frozen=True, slots=True)
class SecretVersion:
    secret: str
    version: int


@dataclass(frozen=True, slots=True)
class SecretValue:
    """`value` or `fields`, as it was put. `created`: RFC 3339."""

    value: Secret | None
    fields: dict[str, Secret] | None
    version: int
    created: str


@dataclass(frozen=True, slots=True)
class SecretSummary:
    secret: str
    version: int
    created: str


@dataclass(frozen=True, slots=True)
class SecretDeleted:
    """`deleted`: how many versions."""

    secret: str
    deleted: int


@dataclass(frozen=True, slots=True)
class Hsm:
    """`group`: of which it is a member. `state`: starting, up, restarting, down, latched, diverged or sealed.
    `workers`: connected now, of those that are configured. What says which token it is is None until a worker has
    connected."""

    hsm: str
    group: str | None
    state: str
    workers: int
    configured: int
    backend: str | None
    label: str | None
    model: str | None
    serial: str | None
    firmware: str | None


@dataclass(frozen=True, slots=True)
class HsmKey:
    """Which protections are possible for keys of this kind."""

    algorithm: str
    purpose: str
    resident: bool
    wrapped: bool
    cached: bool


@dataclass(frozen=True, slots=True)
class HsmInfo:
    """`identity`: hex. `chosen`: what was negotiated with the token, by purpose. `missing`: what openk could use and
    the token lacks."""

    hsm: str
    backend: str
    label: str
    model: str
    serial: str
    firmware: str
    identity: str
    chosen: Answer
    mechanisms: Sequence[str]
    missing: Sequence[str]
    keys: Sequence[HsmKey]


@dataclass(frozen=True, slots=True)
class HsmStatus:
    """`breaker`: requests are refused at once. `latched`: the PIN was wrong and is not tried again. `retry_after`:
    milliseconds, where the daemon knows. `advice`: what to do next, empty where nothing is. Counts since the daemon
    started: `restarts` of workers; operations `replayed`, `quarantined` (workers died under them), `timed_out`, refused
    by full queues (`busy`) or by breaker or quarantine (`rejected`); `trips` of the breaker."""

    hsm: str
    group: str | None
    state: str
    workers: int
    configured: int
    queued: int
    in_flight: int
    restarts: int
    replayed: int
    quarantined: int
    timed_out: int
    busy: int
    rejected: int
    trips: int
    breaker: bool
    latched: bool
    retry_after: int | None
    advice: str


@dataclass(frozen=True, slots=True)
class HsmObject:
    """`state`: ok, unknown, missing or doubled. `role`: root, audit, vault, key, login, unfinished or none.
    `name` and `version`: of the key or vault, where it has one. `id`: hex."""

    state: str
    role: str
    name: str | None
    version: int | None
    label: str
    id: str
    kind: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class HsmObjects:
    """`keys`: how many were looked at; not `complete`: there are more of them."""

    hsm: str
    objects: Sequence[HsmObject]
    unknown: int
    missing: int
    doubled: int
    keys: int
    complete: bool


@dataclass(frozen=True, slots=True)
class HsmCheck:
    """`outcome`: ok, failed or unsupported."""

    check: str
    outcome: str
    text: str
    microseconds: int


@dataclass(frozen=True, slots=True)
class HsmSelftest:
    hsm: str
    passed: bool
    checks: Sequence[HsmCheck]


@dataclass(frozen=True, slots=True)
class HsmAttestation:
    """`pem`: certificates, the key's own first."""

    key: str
    version: int
    hsm: str
    pem: str


@dataclass(frozen=True, slots=True)
class HsmBench:
    """One operation at a time. `p50`, `p99` and `times`: microseconds."""

    hsm: str
    operation: str
    per_second: int
    p50: int
    p99: int
    times: Sequence[int]


@dataclass(frozen=True, slots=True)
class PolicyExplanation:
    allowed: bool
    policies: Sequence[str]
    errors: Sequence[str]
    flips: Sequence[str]
    facts: Answer


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
class AlertEvent:
    """An alert was raised, or cleared. `number` counts from 1 since the daemon's start; `at`: Unix time."""

    number: int
    alert: str
    severity: str
    raised: bool
    at: int
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Alerts:
    """`last`: number of the newest event."""

    alerts: list[Alert]
    events: list[AlertEvent]
    last: int


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
class PolicyEpoch:
    epoch: int
    policies: int


@dataclass(frozen=True, slots=True)
class AuditHead:
    """`checkpoint`: a C2SP tlog-checkpoint; `public`: the audit key, SubjectPublicKeyInfo DER."""

    checkpoint: str
    signed_size: int
    size: int
    public: bytes


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
