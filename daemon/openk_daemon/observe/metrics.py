"""The daemon's numbers: counted as plain integers on the request path, named and explained when they are read.

`Metrics.request` is all that each request pays (about 0.6 µs), and one in `SAMPLED` its stages; everything else is read
by callables at exposition.

Latency buckets are powers of two, so that finding one is a shift: bucket k holds times below 2**k / 65536
seconds (k = 0 … 20: 15 µs … 16 s).

Labels are bounded: methods and codes come from their tables, lanes and alerts from the configuration, stages from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.observe.exposition import Exemplar, Family, Kind, Labels, Sample, render
from openk_daemon.observe.process import process_families

BUCKETS: Final = 21
BOUNDS: Final = tuple(2**k / 65536 for k in range(BUCKETS))
"""Upper bounds of the latency buckets, seconds; what is longer counts under +Inf only."""
_SHOWN: Final = tuple(repr(bound) for bound in BOUNDS)
SIZES: Final = tuple(2**k for k in range(11))
"""Upper bounds of the commit size buckets, units."""
_SHOWN_SIZES: Final = tuple(repr(float(bound)) for bound in SIZES)
STAGES: Final = ("policy", "queue", "hsm", "work", "audit")
"""Where a request's time goes: until it is decided; waiting for a worker; at the HSM; work that the HSM did not
answer (keys in locked memory, reads of the store); until its audit record is durable."""
SAMPLED: Final = 8
"""One request in so many has its stages counted: a power of two."""
_KEPT: Final = 15
"""An exemplar replaces the one before it in the 1st, 17th, 33rd … request of a bucket (a mask)."""
OK: Final = "ok"

Reading = float | Sequence[tuple[Labels, float]]
"""What a watched number is: one value, or one for each set of labels."""


class Histogram:
    """Counts by bucket. `counts` has one more element than bounds, for +Inf. `exemplars`: by bucket, where kept."""

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def time(self, seconds: float) -> None:
        """Count one time, in a histogram of BUCKETS."""
        bucket = int(seconds * 65536).bit_length()
        self.counts[bucket if bucket < BUCKETS else BUCKETS] += 1
        self.total += seconds


@dataclass(frozen=True, slots=True)
class _Watched:
    name: str
    summary: str
    kind: Kind
    read: Callable[[], Reading]


class Metrics:
    """The counters are plain attributes: `metrics.bytes_in += n`. All on the trio thread."""

    __slots__ = (
        "_codes", "_latencies", "_watched", "bytes_in", "bytes_out", "commit_seconds", "commit_sizes",
        "connections_closed", "connections_opened", "connections_refused", "frames_invalid", "reads_paused", "stages",
    )  # fmt: skip

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], int] = {}
        self._latencies: dict[str, Histogram] = {}
        self._watched: dict[str, _Watched] = {}
        self.connections_opened = 0
        self.connections_closed = 0
        self.connections_refused = 0
        self.frames_invalid = 0
        self.reads_paused = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.commit_sizes = Histogram(len(SIZES))
        self.commit_seconds = Histogram(BUCKETS)
        self.stages: Mapping[str, Histogram] = {stage: Histogram(BUCKETS) for stage in STAGES}

    def request(self, method: str, code: str, seconds: float, request: str = "") -> None:
        """One request answered: `code` is "ok" or an error code's name, `seconds` from its last byte to its reply,
        `request` its id, for exemplars.

        `method` must come from the method table ("unknown" for all others), or clients could make metrics.
        """
        codes = self._codes
        key = (method, code)
        codes[key] = codes.get(key, 0) + 1
        latency = self._latencies.get(method)
        if latency is None:
            latency = self._latencies[method] = Histogram(BUCKETS)
        bucket = int(seconds * 65536).bit_length()
        if bucket > BUCKETS:
            bucket = BUCKETS
        counts = latency.counts
        if request and not counts[bucket] & _KEPT:
            latency.exemplars[bucket] = Exemplar(request, seconds, time.time())
        counts[bucket] += 1
        latency.total += seconds

    def staged(self, began: float, decided: float, sent: float, handled: float, ended: float) -> None:
        """Where one request's time went, by the monotonic moments of its life; `sent`: to the HSM's worker, 0.0 where
        that did not settle it."""
        stages = self.stages
        stages["policy"].time(decided - began)
        if sent >= decided:
            stages["queue"].time(sent - decided)
            stages["hsm"].time(handled - sent)
        else:
            stages["work"].time(handled - decided)
        stages["audit"].time(ended - handled)

    def commit(self, units: int, seconds: float) -> None:
        """One group commit of the store made `units` durable."""
        size = (units - 1).bit_length() if units > 0 else 0
        self.commit_sizes.counts[min(size, len(SIZES))] += 1
        self.commit_sizes.total += units
        self.commit_seconds.time(seconds)

    def watch(self, name: str, summary: str, read: Callable[[], Reading], kind: Kind = Kind.GAUGE) -> None:
        """Have `openk_<name>` read at each exposition. A counter's name must end in `_total`.

        Raises ValueError when the name is taken. A `read` that raises leaves its samples out.
        """
        if name in self._watched:
            raise ValueError(f"the metric {name} is watched already")
        if (kind is Kind.COUNTER) != name.endswith("_total"):
            raise ValueError(f"{name}: counters, and only they, end in _total")
        self._watched[name] = _Watched(name, summary, kind, read)

    def requests(self) -> Mapping[tuple[str, str], int]:
        """Requests so far, by method and code."""
        return self._codes

    def latencies(self) -> Mapping[str, Histogram]:
        """By method."""
        return self._latencies

    def expose(self, *, openmetrics: bool = False) -> str:
        """Everything, in the Prometheus text format 0.0.4 or OpenMetrics 1.0.0."""
        return render(self.families(), openmetrics=openmetrics)

    def families(self) -> Iterator[Family]:
        """Each is read when it is asked for."""
        yield from self._own()
        for watched in list(self._watched.values()):
            try:
                reading = watched.read()
            except Exception:  # noqa: BLE001, S112 - one broken reading must not hide all the others; health tells why
                continue
            values = [((), reading)] if isinstance(reading, int | float) else reading
            yield Family(watched.name, watched.summary, watched.kind, [Sample("", *pair) for pair in values])
        yield from process_families()

    def _own(self) -> Iterator[Family]:
        yield Family(
            "requests_total", "Requests answered, by method and code.", Kind.COUNTER,
            [Sample("", (("method", method), ("code", code)), count) for (method, code), count in self._codes.items()],
        )  # fmt: skip
        yield Family(
            "request_seconds", "From a request's last byte to its reply.", Kind.HISTOGRAM,
            [sample for method, latency in self._latencies.items()
             for sample in _histogram(latency, _SHOWN, (("class", group_of(method)), ("method", method)))],
        )  # fmt: skip
        yield Family(
            "stage_seconds", f"Where requests' time goes; one request in {SAMPLED} is counted.", Kind.HISTOGRAM,
            [sample for stage, times in self.stages.items() for sample in _histogram(times, _SHOWN, (("stage", stage),))],
        )  # fmt: skip
        sizes = _histogram(self.commit_sizes, _SHOWN_SIZES)
        yield Family("commit_units", "Units in one group commit of the store.", Kind.HISTOGRAM, sizes)
        times = _histogram(self.commit_seconds, _SHOWN)
        yield Family("commit_seconds", "Time of one group commit, with its fsync.", Kind.HISTOGRAM, times)
        yield from self._connections()

    def _connections(self) -> Iterator[Family]:
        now = self.connections_opened - self.connections_closed
        yield Family("connections", "Connections open now.", Kind.GAUGE, [Sample("", (), now)])
        for name, summary, value in (
            ("connections_opened_total", "Connections accepted.", self.connections_opened),
            ("connections_refused_total", "Connections turned away by a limit.", self.connections_refused),
            (
                "frames_invalid_total",
                "Messages that were no valid ones; some end their connection.",
                self.frames_invalid,
            ),
            ("reads_paused_total", "Times a connection was not read because of a limit.", self.reads_paused),
            ("received_bytes_total", "Bytes read from clients.", self.bytes_in),
            ("sent_bytes_total", "Bytes sent to clients.", self.bytes_out),
        ):
            yield Family(name, summary, Kind.COUNTER, [Sample("", (), value)])


def group_of(method: str) -> str:
    """The class of a method: its noun ("key", "secret", …)."""
    return method.partition(".")[0]


def _histogram(histogram: Histogram, bounds: Sequence[str], labels: Labels = ()) -> list[Sample]:
    samples: list[Sample] = []
    running = 0
    exemplars = histogram.exemplars
    for bucket, (bound, count) in enumerate(zip((*bounds, "+Inf"), histogram.counts, strict=True)):
        running += count
        samples.append(Sample("_bucket", (*labels, ("le", bound)), running, exemplars.get(bucket)))
    samples.append(Sample("_sum", labels, histogram.total))
    samples.append(Sample("_count", labels, running))
    return samples


def quantile(counts: Sequence[int], share: float) -> float:
    """The time below which that share of the counted requests was, in seconds: the upper bound of its bucket; 0.0 where
    none was counted. What is longer than the longest bucket counts as twice that."""
    wanted = share * sum(counts)
    running = 0
    for bucket, count in enumerate(counts):
        running += count
        if count and running >= wanted:
            return float(2**bucket) / 65536
    return 0.0


def measure_request(metrics: Metrics, rounds: int = 100_000) -> float:
    """Microseconds one call of `request` costs, for the bench."""
    start = time.perf_counter()
    for _ in range(rounds):
        metrics.request("system.ping", OK, 0.00002, "00000000-1")
    return (time.perf_counter() - start) / rounds * 1e6
