"""The few numbers that say how a daemon is: what history keeps, alerts look at, and `openk top` shows.

Rates and percentiles are over the last 10 seconds, taken anew each second; all else is as it is now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final

from openk.wire.codes import CODES, Fault
from openk_daemon.observe.metrics import BUCKETS, Metrics, quantile

WINDOW: Final = 10
"""Readings, a second apart, between which rates are taken."""
_THEIRS: Final = frozenset(name for name, code in CODES.items() if code.fault is Fault.CALLER)
"""Refusals by the callers' own fault."""


@dataclass(frozen=True, slots=True)
class Signal:
    name: str
    unit: str
    summary: str


SIGNALS: Final = (
    Signal("requests_per_second", "1/s", "Requests answered."),
    Signal("refused_per_second", "1/s", "Of those, refused by the callers' fault."),
    Signal("failed_per_second", "1/s", "Of those, failed by the fault of HSM, store or openk."),
    Signal("failed_share", "", "Failed requests, as a share of all."),
    Signal("internal_per_second", "1/s", "Requests answered `internal`."),
    Signal("request_p50_seconds", "s", "Half of the requests take less."),
    Signal("request_p99_seconds", "s", "99 of 100 requests take less."),
    Signal("commit_p99_seconds", "s", "99 of 100 group commits take less."),
    Signal("hsm_p99_seconds", "s", "99 of 100 answers of the HSM take less."),
    Signal("connections", "", "Connections open."),
    Signal("hsm_down", "", "HSMs that do not serve."),
    Signal("hsm_workers_missing", "", "HSM workers that should be there."),
    Signal("hsm_queued", "", "Operations that wait for a worker."),
    Signal("hsm_probe_seconds", "s", "The slowest HSM's last round trip; while one is not answered, since when."),
    Signal("hsm_restarts", "", "Workers replaced within the last 10 s."),
    Signal("hsm_restarts_hour", "", "Workers replaced within the last hour."),
    Signal("hsm_alarms", "", "Times that somebody else used a device, since the start."),
    Signal("rotation_overdue", "", "Keys that are due for rotation, as of the last look at all."),
    Signal("audit_unsigned", "", "Audit entries that no signature covers yet."),
    Signal("audit_refusing", "", "1 while nothing is admitted."),
    Signal("store_queued", "", "Units that wait for a group commit."),
    Signal("store_failing", "", "1 while commits fail or the disk does not answer."),
    Signal("disk_free_share", "", "Free share of the disk that holds the state."),
    Signal("disk_free_bytes", "B", "Free bytes of it."),
    Signal("locked_memory_share", "", "Share of the locked memory in use."),
    Signal("descriptors_share", "", "Share of the file descriptors in use."),
    Signal("cpu_share", "", "Of one CPU."),
    Signal("resident_bytes", "B", "Resident memory of openkd."),
    Signal("log_dropped_per_second", "1/s", "Log lines nobody took."),
    Signal("clock_step_seconds", "s", "By how much the wall clock was set within the last ten minutes."),
    Signal("backup_age_seconds", "s", "Since the newest backup was made; of none: since the start."),
    Signal("health", "", "0 ok, 1 degraded, 2 failed."),
    Signal("sealed", "", "1 while sealed."),
)
NAMES: Final = tuple(signal.name for signal in SIGNALS)
COUNTED: Final[Mapping[str, str]] = {"log_dropped": "log_dropped_per_second", "cpu_seconds": "cpu_share"}
"""Counters among what is read, and the signal that is their rate."""

Read = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class _Moment:
    """Sums since the start, at one moment."""

    at: float
    requests: int
    refused: int
    failed: int
    internal: int
    latencies: Sequence[int]
    commits: Sequence[int]
    hsm: Sequence[int]
    restarts: float
    counted: Mapping[str, float]


class Signals:
    """Not for threads. `read`: what is known of the parts, by the names above and those of COUNTED; `hsm_restarts` is a
    count since the start there. It must answer at once."""

    def __init__(self, metrics: Metrics, read: Read) -> None:
        self._metrics = metrics
        self._read = read
        self._moments: deque[_Moment] = deque(maxlen=WINDOW + 1)

    def take(self, now: float) -> dict[str, float]:
        """A reading, once a second. `now`: monotonic seconds. The first has no rates."""
        values = dict(self._read())
        moment = self._moment(now, values)
        values.pop("hsm_restarts", None)
        self._moments.append(moment)
        before = self._moments[0]
        seconds = moment.at - before.at
        if seconds <= 0:
            return values
        requests = moment.requests - before.requests
        failed = moment.failed - before.failed
        latencies = _less(moment.latencies, before.latencies)
        return values | {
            "requests_per_second": requests / seconds,
            "refused_per_second": (moment.refused - before.refused) / seconds,
            "failed_per_second": failed / seconds,
            "failed_share": failed / requests if requests else 0.0,
            "internal_per_second": (moment.internal - before.internal) / seconds,
            "request_p50_seconds": quantile(latencies, 0.5),
            "request_p99_seconds": quantile(latencies, 0.99),
            "commit_p99_seconds": quantile(_less(moment.commits, before.commits), 0.99),
            "hsm_p99_seconds": quantile(_less(moment.hsm, before.hsm), 0.99),
            "hsm_restarts": moment.restarts - before.restarts,
            **{signal: (moment.counted[name] - before.counted[name]) / seconds for name, signal in COUNTED.items()},
        }

    def _moment(self, now: float, values: dict[str, float]) -> _Moment:
        metrics = self._metrics
        requests = refused = failed = internal = 0
        for (_, code), count in metrics.requests().items():
            requests += count
            if code == "ok":
                continue
            if code in _THEIRS:
                refused += count
            else:
                failed += count
                internal += count if code == "internal" else 0
        latencies = [0] * (BUCKETS + 1)
        for histogram in metrics.latencies().values():
            latencies = [one + other for one, other in zip(latencies, histogram.counts, strict=True)]
        counted = {name: values.pop(name, nan) for name in COUNTED}
        hsm, commits = tuple(metrics.stages["hsm"].counts), tuple(metrics.commit_seconds.counts)
        restarts = values.get("hsm_restarts", nan)
        return _Moment(now, requests, refused, failed, internal, latencies, commits, hsm, restarts, counted)


def _less(now: Sequence[int], before: Sequence[int]) -> list[int]:
    return [one - other for one, other in zip(now, before, strict=True)]
