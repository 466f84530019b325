"""The numbers and findings every openkd has, read from its parts through callables that wiring hands in.

docs/operations.md says which of them to alarm on; metric names are part of what a version promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.health import OK, Check, Finding, Health, State
from openk_daemon.observe.metrics import Metrics

MEMORY_DEGRADED: Final = 0.8
"""Share of the locked memory in use above which an operator should look."""
LAG_DEGRADED: Final = 4
"""Unsigned entries, in multiples of `audit.checkpoint_entries`."""
_UP: Final = "up"
_ODD: Final = "diverged"
_PASSING: Final = ("starting", "restarting")
_SHUT: Final = ("down", "latched", "diverged", "sealed")
"""Requests are refused at once."""


class LaneReading(Protocol):
    """openk_hsm.seam.LaneHealth."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def workers(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def replayed(self) -> int: ...
    @property
    def quarantined(self) -> int: ...
    @property
    def timed_out(self) -> int: ...
    @property
    def busy(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def trips(self) -> int: ...
    @property
    def refusals(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def operations(self) -> int: ...
    @property
    def loaded(self) -> int: ...


class MemoryReading(Protocol):
    """openk_memory.pool.Counters; bytes, but for `refusals` and `waits`."""

    @property
    def capacity(self) -> int: ...
    @property
    def locked(self) -> int: ...
    @property
    def in_use(self) -> int: ...
    @property
    def peak(self) -> int: ...
    @property
    def refusals(self) -> int: ...
    @property
    def waits(self) -> int: ...


@dataclass(frozen=True, slots=True)
class AuditReading:
    """`size` entries, `signed` of them under a checkpoint; `refusing` says why nothing is admitted, if so."""

    size: int
    signed: int
    refusing: str | None
    lag: float = 0.0
    """Seconds since every entry was signed; 0.0 while every one is."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Each is called at a scrape or a health request, on the trio thread, and must answer at once."""

    lanes: Callable[[], Sequence[LaneReading]]
    memory: Callable[[], MemoryReading]
    audit: Callable[[], AuditReading]
    store_queued: Callable[[], int]
    store_fault: Callable[[], Exception | None]
    decisions: Callable[[], int]
    """Policy decisions remembered now."""
    log_dropped: Callable[[], int]
    checkpoint_entries: Callable[[], int] = lambda: 4096
    """Entries that may wait for a signature, as configured."""
    evaluated: Callable[[], int] = int
    """Policy decisions that were not remembered, since the start."""
    remembered: Callable[[], int] = int
    """Those that were."""


def watch_standard(metrics: Metrics, sources: Sources) -> None:
    """Register the metrics below. Raises ValueError when one of the names is taken."""
    _watch_lanes(metrics, sources.lanes)
    memory, audit = sources.memory, sources.audit
    metrics.watch("locked_memory_capacity_bytes", "Most the pool may lock.", lambda: memory().capacity)
    metrics.watch("locked_memory_bytes", "In use by messages, keys and secrets.", lambda: memory().in_use)
    metrics.watch("locked_memory_peak_bytes", "The most that was ever in use.", lambda: memory().peak)
    metrics.watch("locked_memory_locked_bytes", "Locked by the kernel so far.", lambda: memory().locked)
    metrics.watch("locked_memory_refusals_total", "Leases refused.", lambda: memory().refusals, Kind.COUNTER)
    metrics.watch("locked_memory_waits_total", "Times somebody waited for room.", lambda: memory().waits, Kind.COUNTER)
    metrics.watch("audit_entries", "Entries of the audit log.", lambda: audit().size)
    metrics.watch("audit_unsigned", "Entries not yet under a signed checkpoint.", lambda: audit().size - audit().signed)
    metrics.watch("audit_lag_seconds", "Since all was under a checkpoint; 0 while all is.", lambda: audit().lag)
    metrics.watch("audit_refusing", "1 while nothing is admitted.", lambda: int(audit().refusing is not None))
    metrics.watch("store_queued", "Units that wait for the next group commit.", sources.store_queued)
    metrics.watch("policy_decisions", "Decisions remembered.", sources.decisions)
    metrics.watch("policy_evaluated_total", "Decisions that were not remembered.", sources.evaluated, Kind.COUNTER)
    metrics.watch("policy_remembered_total", "Decisions found remembered.", sources.remembered, Kind.COUNTER)
    metrics.watch("log_dropped_total", "Log lines nobody took.", sources.log_dropped, Kind.COUNTER)


def _watch_lanes(metrics: Metrics, lanes: Callable[[], Sequence[LaneReading]]) -> None:
    def each(read: Callable[[LaneReading], float]) -> Callable[[], Sequence[tuple[Labels, float]]]:
        return lambda: [((("lane", lane.name),), read(lane)) for lane in lanes()]

    metrics.watch("hsm_up", "1 while the lane serves.", each(lambda lane: int(lane.state == _UP)))
    metrics.watch("hsm_workers", "Workers connected.", each(lambda lane: lane.workers))
    metrics.watch("hsm_queued", "Operations that wait for a worker.", each(lambda lane: lane.queued))
    metrics.watch("hsm_in_flight", "Operations at a worker.", each(lambda lane: lane.in_flight))
    restarts, replayed = each(lambda lane: lane.restarts), each(lambda lane: lane.replayed)
    metrics.watch("hsm_restarts_total", "Workers that were replaced.", restarts, Kind.COUNTER)
    metrics.watch("hsm_replayed_total", "Operations done again after a worker's death.", replayed, Kind.COUNTER)
    metrics.watch("hsm_loaded_keys", "Keys that workers' sessions hold.", each(lambda lane: lane.loaded))
    metrics.watch("hsm_breaker_open", "1 while requests are refused at once.", each(lambda lane: lane.state in _SHUT))
    metrics.watch("hsm_diverged", "1 while its root keys are not its group's.", each(lambda lane: lane.state == _ODD))
    counted: tuple[tuple[str, str, Callable[[LaneReading], float]], ...] = (
        ("hsm_quarantined_total", "Operations given up because workers died under them.", lambda one: one.quarantined),
        ("hsm_timed_out_total", "Operations without an answer within their deadline.", lambda one: one.timed_out),
        ("hsm_busy_total", "Operations refused because too many waited.", lambda one: one.busy),
        ("hsm_rejected_total", "Operations refused while down or in quarantine.", lambda one: one.rejected),
        ("hsm_breaker_opened_total", "Times the breaker opened.", lambda one: one.trips),
        ("hsm_batches_total", "Batches of operations sent to workers.", lambda one: one.batches),
        ("hsm_operations_total", "Operations in those batches.", lambda one: one.operations),
        ("hsm_refusals_total", "Workers that could not serve: device, token or PIN.", lambda one: one.refusals),
    )
    for name, text, read in counted:
        metrics.watch(name, text, each(read), Kind.COUNTER)


def check_standard(health: Health, sources: Sources) -> None:
    """Register the findings below. Raises ValueError when one of the components has a check."""
    health.add("hsm", _hsm(sources.lanes))
    health.add("store", _store(sources.store_fault))
    health.add("audit", _audit(sources.audit, sources.checkpoint_entries))
    health.add("memory", _memory(sources.memory))


def _hsm(lanes: Callable[[], Sequence[LaneReading]]) -> Check:
    def check() -> Finding:
        readings = lanes()
        troubled = [f"lane {lane.name} is {lane.state}" for lane in readings if lane.state != _UP]
        if not troubled:
            return OK
        serving = any(lane.state == _UP or lane.state in _PASSING for lane in readings)
        return Finding(State.DEGRADED if serving else State.FAILED, ", ".join(troubled))

    return check


def _store(fault: Callable[[], Exception | None]) -> Check:
    def check() -> Finding:
        found = fault()
        if found is None:
            return OK
        code = getattr(found, "code", "store.unavailable")
        return Finding(State.FAILED, f"commits fail ({code}); see the log")

    return check


def _audit(read: Callable[[], AuditReading], checkpoint_entries: Callable[[], int]) -> Check:
    def check() -> Finding:
        reading = read()
        if reading.refusing is not None:
            return Finding(State.FAILED, reading.refusing)
        unsigned = reading.size - reading.signed
        if unsigned > LAG_DEGRADED * checkpoint_entries():
            return Finding(State.DEGRADED, f"{unsigned} entries wait for a signature of the HSM")
        return OK

    return check


def _memory(read: Callable[[], MemoryReading]) -> Check:
    def check() -> Finding:
        reading = read()
        if reading.in_use > MEMORY_DEGRADED * reading.capacity:
            return Finding(State.DEGRADED, f"{reading.in_use} of {reading.capacity} bytes of locked memory are in use")
        return OK

    return check
