"""How a lane is, as it tells whoever asks: readings and the health of the daemon are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LaneState(StrEnum):
    STARTING = "starting"
    UP = "up"
    RESTARTING = "restarting"  # requests wait
    DOWN = "down"  # requests fail at once with hsm.unavailable and retry_after
    LATCHED = "latched"  # wrong PIN
    DIVERGED = "diverged"  # a member of a group with other root keys: refused, the others serve
    SEALED = "sealed"  # logged out until an operator unseals


@dataclass(frozen=True, slots=True)
class LaneHealth:
    """`refusal`: code of why the worker that connected last does not serve, else empty. `retry_after`: seconds, while
    requests are refused at once. Counts since the start: `restarts` of workers; operations `replayed`, `quarantined`
    (workers died under them), `timed_out`, refused because of full queues (`busy`) or because the breaker was open or
    such an operation was quarantined (`rejected`); `trips`: how often the breaker opened; `refusals`: workers that
    connected and could not serve, because of device, token or PIN; `batches` of hot operations sent to workers, and the
    `operations` in them. Now: keys `loaded` in workers' sessions."""

    name: str
    state: LaneState
    workers: int
    queued: int
    in_flight: int
    restarts: int
    replayed: int
    refusal: str = ""
    retry_after: float | None = None
    quarantined: int = 0
    timed_out: int = 0
    busy: int = 0
    rejected: int = 0
    trips: int = 0
    refusals: int = 0
    batches: int = 0
    operations: int = 0
    loaded: int = 0
