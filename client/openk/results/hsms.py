"""What `hsm.*` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openk.answers import Answer


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
