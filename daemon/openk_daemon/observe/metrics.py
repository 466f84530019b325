"""The daemon's numbers: counted as plain integers on the request path, named and explained when they are read.

`Metrics.request` is all a request pays (about 0.4 µs); everything else is read by callables at exposition.

Latency buckets are powers of two, so that finding one is a shift: bucket k holds times below 2**k / 65536
seconds (k = 0 … 20: 15 µs … 16 s).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from openk_daemon.observe.exposition import Family, Kind, Sample, render

BUCKETS: Final = 21
BOUNDS: Final = tuple(2**k / 65536 for k in range(BUCKETS))
"""Upper bounds of the latency buckets, seconds; what is longer counts under +Inf only."""
SIZES: Final = tuple(2**k for k in range(11))
"""Upper bounds of the commit size buckets, units."""
OK: Final = "ok"

Labels = tuple[tuple[str, str], ...]
Reading = float | Sequence[tuple[Labels, float]]
"""What a watched number is: one value, or one for each set of labels."""


class Histogram:
    """Counts by bucket. `counts` has one more element than bounds, for +Inf."""

    __slots__ = ("counts", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.total = 0.0


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
        "connections_closed", "connections_opened", "connections_refused", "frames_invalid", "log_dropped", "reads_paused",
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

    def request(self, method: str, code: str, seconds: float) -> None:
        """One request answered: `code` is "ok" or an error code's name, `seconds` from its last byte to its reply.

        `method` must come from the method table ("unknown" for all others), or clients could make metrics.
        """
        codes = self._codes
        key = (method, code)
        codes[key] = codes.get(key, 0) + 1
        latency = self._latencies.get(method)
        if latency is None:
            latency = self._latencies[method] = Histogram(BUCKETS)
        bucket = int(seconds * 65536).bit_length()
        latency.counts[bucket if bucket < BUCKETS else BUCKETS] += 1
        latency.total += seconds

    def commit(self, units: int, seconds: float) -> None:
        """One group commit of the store made `units` durable."""
        size = (units - 1).bit_length() if units > 0 else 0
        self.commit_sizes.counts[min(size, len(SIZES))] += 1
        self.commit_sizes.total += units
        bucket = int(seconds * 65536).bit_length()
        self.commit_seconds.counts[min(bucket, BUCKETS)] += 1
        self.commit_seconds.total += seconds

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

    def expose(self) -> str:
        """Everything in the Prometheus text format 0.0.4."""
        return render([*self._own(), *self._read_watched(), *process_families()])

    def _own(self) -> list[Family]:
        return [
            Family("requests_total", "Requests answered, by method and code.", Kind.COUNTER,
                   [Sample("", (("method", method), ("code", code)), count) for (method, code), count in self._codes.items()]),
            Family("request_seconds", "From a request's last byte to its reply.", Kind.HISTOGRAM,
                   [sample for method, latency in self._latencies.items()
                    for sample in _histogram(latency, BOUNDS, (("class", group_of(method)), ("method", method)))]),
            Family("commit_units", "Units in one group commit of the store.", Kind.HISTOGRAM, _histogram(self.commit_sizes, SIZES)),
            Family("commit_seconds", "Time of one group commit.", Kind.HISTOGRAM, _histogram(self.commit_seconds, BOUNDS)),
            _single("connections", "Connections open now.", Kind.GAUGE, self.connections_opened - self.connections_closed),
            _single("connections_opened_total", "Connections accepted.", Kind.COUNTER, self.connections_opened),
            _single("connections_refused_total", "Connections turned away by a limit.", Kind.COUNTER, self.connections_refused),
            _single("frames_invalid_total", "Messages that were no valid ones; some end their connection.", Kind.COUNTER, self.frames_invalid),
            _single("reads_paused_total", "Times a connection was not read because of a limit.", Kind.COUNTER, self.reads_paused),
            _single("received_bytes_total", "Bytes read from clients.", Kind.COUNTER, self.bytes_in),
            _single("sent_bytes_total", "Bytes sent to clients.", Kind.COUNTER, self.bytes_out),
        ]  # fmt: skip

    def _read_watched(self) -> list[Family]:
        families: list[Family] = []
        for watched in self._watched.values():
            try:
                reading = watched.read()
            except Exception:  # noqa: BLE001, S112 - one broken reading must not hide all the others; health tells why
                continue
            samples = [Sample("", (), reading)] if isinstance(reading, int | float) else [Sample("", *pair) for pair in reading]
            families.append(Family(watched.name, watched.summary, watched.kind, samples))
        return families


def group_of(method: str) -> str:
    """The class of a method: its noun ("key", "secret", …)."""
    return method.partition(".")[0]


def _single(name: str, summary: str, kind: Kind, value: float) -> Family:
    return Family(name, summary, kind, [Sample("", (), value)])


def _histogram(histogram: Histogram, bounds: Sequence[float], labels: Labels = ()) -> list[Sample]:
    samples: list[Sample] = []
    running = 0
    for bound, count in zip([*(repr(float(bound)) for bound in bounds), "+Inf"], histogram.counts, strict=True):
        running += count
        samples.append(Sample("_bucket", (*labels, ("le", bound)), running))
    return [*samples, Sample("_sum", labels, histogram.total), Sample("_count", labels, running)]


def process_families() -> list[Family]:
    """The process itself, under the names every Prometheus dashboard knows (no `openk_` before them)."""
    import psutil  # noqa: PLC0415 - 18 ms, needed only by those who read metrics

    me = psutil.Process()
    try:
        with me.oneshot():
            memory, times, descriptors, started = me.memory_info(), me.cpu_times(), me.num_fds(), me.create_time()
    except (psutil.Error, OSError):  # a hardened process may be refused its own /proc entries
        return []
    pairs = (
        ("process_resident_memory_bytes", "Resident memory.", Kind.GAUGE, memory.rss),
        ("process_cpu_seconds_total", "User and system time.", Kind.COUNTER, times.user + times.system),
        ("process_open_fds", "Open descriptors.", Kind.GAUGE, descriptors),
        ("process_start_time_seconds", "Start, Unix time.", Kind.GAUGE, started),
    )
    return [Family(name, summary, kind, [Sample("", (), value)], prefix="") for name, summary, kind, value in pairs]


def measure_request(metrics: Metrics, rounds: int = 100_000) -> float:
    """Microseconds one call of `request` costs, for the bench."""
    start = time.perf_counter()
    for _ in range(rounds):
        metrics.request("system.ping", OK, 0.00002)
    return (time.perf_counter() - start) / rounds * 1e6
