"""What metrics and a log at info cost, what a scrape costs those who are served meanwhile, and how soon health answers
while the HSM hangs."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import checks, frames
from bench.daemon import VAULT
from bench.result import Result, at_least, at_most
from bench.stage import Stage

LEAST: Final = 0.9
SCRAPE_MOST: Final = 15_000
DELAY_MOST: Final = 5_000
"""Microseconds."""
HUNG_MOST: Final = 100_000
"""Microseconds."""
NOTICED: Final = 10.0
"""Seconds within which health must say that an HSM hangs, here: see Stage.scraped_daemon."""
EVERY: Final = 0.05
"""Seconds between two scrapes: three hundred times as often as a Prometheus, so that they meet enough requests."""


class _Door(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class _Scraper(threading.Thread):
    """Scrapes again and again on one connection; microseconds of each, series in the last."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._ended = threading.Event()
        self.times: list[float] = []
        self.series = 0

    def run(self) -> None:
        door = _Door(self._path)
        while not self._ended.wait(EVERY):
            begin = time.perf_counter()
            door.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
            text = door.getresponse().read()
            self.times.append((time.perf_counter() - begin) * 1e6)
            self.series = sum(not line.startswith(b"#") for line in text.splitlines())
        door.close()

    def end(self) -> None:
        self._ended.set()
        self.join()


def watched(stage: Stage) -> list[Result]:
    """Cached AES-GCM over a store in memory: where a request costs least, watching weighs most."""
    checks.encrypt(stage)
    prepared = [frames.request("key.encrypt", {"key": f"{VAULT}/gcm", "input": b"\x5a" * 256})]
    watching, silent = stage.daemon_in_memory() or stage.daemon(1), stage.silent_daemon()
    ours, theirs = stage.in_turn(
        lambda: stage.load.run(watching.socket, "watched", prepared, depth=32).rate,
        lambda: stage.load.run(silent.socket, "silent", prepared, depth=32).rate,
    )
    work = "AES-256-GCM 256 B, cached, pipelined, with metrics and log"
    return [
        at_least("watched.cost", work, ours, theirs, LEAST, ("/s", "/s without")),
        *_scrapes(stage, prepared[0]),
        _hung(stage),
    ]


def _scrapes(stage: Stage, frame: bytes) -> list[Result]:
    daemon = stage.scraped_daemon()
    door = daemon.folder / "metrics.sock"
    alone = _Scraper(door)
    alone.start()
    time.sleep(max(0.5, stage.seconds))
    alone.end()
    quiet: list[float] = []
    scraped: list[float] = []
    busy: list[float] = []
    for _ in range(stage.rounds):
        quiet.append(stage.load.run(daemon.socket, "unscraped", [frame], connections=4).p99)
        scraper = _Scraper(door)
        scraper.start()
        scraped.append(stage.load.run(daemon.socket, "scraped", [frame], connections=4).p99)
        scraper.end()
        busy += scraper.times
    idle = statistics.median(alone.times)
    delay = max(0.0, statistics.median(scraped) - statistics.median(quiet))
    series = f"a scrape of {alone.series} series"
    told = (f"{idle / 1000:.1f} ms", "-", "≤ 15 ms at 200 series")
    under = statistics.median(busy) if busy else 0.0
    shown = (f"{under / 1000:.1f} ms", "-", "-")
    delayed = (f"{delay / 1000:.2f} ms", f"20 scrapes a second, {under / 1000:.1f} ms each", "≤ 5 ms")
    return [
        at_most("watched.scrape", series, idle, SCRAPE_MOST, told),
        replace(
            at_most("watched.scrape.busy", f"{series}, 4 clients at work", under, 1.0, shown), ratio=None, reached=None
        ),
        at_most("watched.delay", "what scrapes add to the p99 of 4 clients", delay, DELAY_MOST, delayed),
    ]


def _hung(stage: Stage) -> Result:
    """Health asked again and again from the moment on in which the worker is stopped until health has said so for a
    while; the 99th percentile of the answers' times."""
    daemon = stage.scraped_daemon()
    workers = [process.pid for process in daemon.usage() if "openk_hsm" in process.name]
    times: list[float] = []
    said = ""
    begin = time.monotonic()
    noticed = 0.0
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        while time.monotonic() - begin < NOTICED and (not noticed or time.monotonic() - noticed < stage.seconds):
            asked = time.perf_counter()
            health = daemon.client.system.health()
            times.append((time.perf_counter() - asked) * 1e6)
            found = health.components["hsm-round-trip"]
            if health.status != "ok" and isinstance(found, dict) and not noticed:
                noticed, said = time.monotonic(), str(found["reason"])
            time.sleep(0.01)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    if not noticed:
        raise RuntimeError(f"health does not say within {NOTICED} s that the HSM hangs")
    slowest = statistics.quantiles(times, n=100)[98]
    told = (f"{slowest / 1000:.1f} ms", f"says after {noticed - begin:.1f} s: {said}", "≤ 100 ms")
    return at_most("watched.hung", "health while the HSM hangs, p99", slowest, HUNG_MOST, told)
