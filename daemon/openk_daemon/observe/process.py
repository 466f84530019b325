"""The process itself, under the names that every Prometheus dashboard knows (no `openk_` before them)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from openk_daemon.observe.exposition import Family, Kind, Sample

if TYPE_CHECKING:
    import psutil


@cache
def me() -> psutil.Process:
    """psutil is imported when metrics are first read: 20 ms that the start of a daemon can do without."""
    import psutil  # noqa: PLC0415

    return psutil.Process()


def process_families() -> list[Family]:
    """CPU, memory, descriptors, threads, context switches; none where the kernel hides a hardened process's own."""
    import psutil  # noqa: PLC0415 - see `me`

    process = me()
    try:
        with process.oneshot():
            memory, times, started = process.memory_info(), process.cpu_times(), process.create_time()
            threads, switches, descriptors = process.num_threads(), process.num_ctx_switches(), process.num_fds()
            limit = process.rlimit(psutil.RLIMIT_NOFILE)[0]
    except (psutil.Error, OSError):
        return []
    switched = [
        Sample("", (("kind", "voluntary"),), switches.voluntary),
        Sample("", (("kind", "involuntary"),), switches.involuntary),
    ]
    families = [
        Family(name, summary, kind, [Sample("", (), value)], prefix="")
        for name, summary, kind, value in (
            ("process_resident_memory_bytes", "Resident memory.", Kind.GAUGE, memory.rss),
            ("process_virtual_memory_bytes", "Address space.", Kind.GAUGE, memory.vms),
            ("process_cpu_seconds_total", "User and system time.", Kind.COUNTER, times.user + times.system),
            ("process_open_fds", "Open descriptors.", Kind.GAUGE, descriptors),
            ("process_max_fds", "Descriptors that may be open.", Kind.GAUGE, limit),
            ("process_threads", "Threads.", Kind.GAUGE, threads),
            ("process_start_time_seconds", "Start, Unix time.", Kind.GAUGE, started),
        )
    ]
    summary = "Context switches, by whether it waited for something."
    return [*families, Family("process_context_switches_total", summary, Kind.COUNTER, switched, prefix="")]
