"""The metrics door, spoken to by the standard library's HTTP client and by rude ones."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from openk_daemon.doors import scrape
from openk_daemon.doors.scrape import Scrape
from openk_daemon.observe.exposition import Exemplar, Family, Kind, Sample
from openk_daemon.observe.health import Finding, Report, State
from openk_daemon.observe.log import Category, Form, Level, Log, Sink
from openk_daemon.serve import listen, listen_tcp

UP = Family(
    "up", "It is up.", Kind.HISTOGRAM,
    [Sample("_bucket", (("le", "+Inf"),), 1, Exemplar("1f-2", 0.5, 7.0)), Sample("_sum", (), 0.5), Sample("_count", (), 1)],
)  # fmt: skip
WELL = Report(State.OK, {"hsm": Finding(State.OK), "backup": Finding(State.UNKNOWN, "nobody knows")})
POOR = Report(State.DEGRADED, {"disk": Finding(State.DEGRADED, "little is free")})
BAD = Report(State.FAILED, {"hsm": Finding(State.FAILED, "lane main is down")})
REPORTS = [WELL]


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


@asynccontextmanager
async def door(path: Path, log: Log | None = None) -> AsyncGenerator[None]:
    listener = listen(str(path), 0o600, None)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Scrape([listener], lambda: [UP], lambda: REPORTS[-1], log).run)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.close()


def fetch(path: Path, *asked: tuple[str, str], accept: str = "*/*") -> list[tuple[int, bytes]]:
    connection = UnixHttp(path)
    answers: list[tuple[int, bytes]] = []
    for method, target in asked:
        connection.request(method, target, headers={"Accept": accept})
        response = connection.getresponse()
        answers.append((response.status, response.read()))
    connection.close()
    return answers


async def test_metrics_are_served_again_and_again_on_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    async with door(path):
        answers = await trio.to_thread.run_sync(
            lambda: fetch(path, ("GET", "/metrics"), ("GET", "/"), ("POST", "/metrics"), ("GET", "/metrics"))
        )
    assert [status for status, _ in answers] == [200, 404, 405, 200]
    assert answers[0][1] == (
        b"# HELP openk_up It is up.\n# TYPE openk_up histogram\n"
        b'openk_up_bucket{le="+Inf"} 1\nopenk_up_sum 0.5\nopenk_up_count 1\n'
    )


async def test_who_accepts_openmetrics_gets_exemplars(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    async with door(path):
        [(_, body)] = await trio.to_thread.run_sync(lambda: fetch(path, ("GET", "/metrics"), accept=accept))
    assert b'openk_up_bucket{le="+Inf"} 1 # {request="1f-2"} 0.500000000 7.000\n' in body
    assert body.endswith(b"\n# EOF\n")


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        (WELL, 200, b"ok\nhsm: ok\nbackup: unknown: nobody knows\n"),
        (POOR, 200, b"degraded\ndisk: degraded: little is free\n"),
        (BAD, 503, b"failed\nhsm: failed: lane main is down\n"),
    ],
)
async def test_ready_is_who_can_serve_and_live_who_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report, status: int, said: bytes
) -> None:
    monkeypatch.setattr(f"{__name__}.REPORTS", [report])
    path = tmp_path / "m.sock"
    async with door(path):
        asked = (("GET", "/readyz"), ("HEAD", "/readyz"), ("GET", "/livez"), ("GET", "/readyz?verbose"))
        answers = await trio.to_thread.run_sync(lambda: fetch(path, *asked))
    assert answers == [(status, said), (status, b""), (200, b"ok\n"), (status, said)]


def test_tcp_is_loopback_and_a_bad_port_is_told() -> None:
    with listen_tcp("127.0.0.1:0") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError, match="no port"):
        listen_tcp("127.0.0.1:99999")


@pytest.mark.parametrize(
    "rubbish", [b"\x00\xff" * 100, b"GET /metrics HTTP/1.1\r\n\r\n\r\n", b"A" * 9000 + b"\r\n\r\n"]
)
async def test_rubbish_ends_one_connection_and_no_more(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "m.sock"
    async with door(path):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(rubbish)
            answer = await stream.receive_some(4096)
            assert answer.startswith(b"HTTP/1.1 4")
        answers = await trio.to_thread.run_sync(lambda: fetch(path, ("GET", "/metrics")))
    assert answers[0][0] == 200


async def test_a_silent_client_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "SECONDS", 0.05)
    path = tmp_path / "m.sock"
    async with door(path):
        stream = await trio.open_unix_socket(path)
        async with stream:
            with trio.fail_after(5):
                assert await stream.receive_some(10) == b""


async def test_more_than_its_places_are_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    async with door(path):
        streams = [await trio.open_unix_socket(path) for _ in range(scrape.SCRAPES + 1)]
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked()
            assert await streams[-1].receive_some(10) == b""
        for stream in streams:
            await stream.aclose()


async def test_requests_are_logged_at_debug_and_rubbish_always(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = Log(Sink(file.fileno(), Form.JSON), Category.REQUESTS, {Category.REQUESTS: Level.DEBUG})
        async with door(tmp_path / "s", log):
            asked = partial(fetch, tmp_path / "s", ("GET", "/metrics"), ("HEAD", "/nowhere?pin=1"))
            await trio.to_thread.run_sync(asked)
            log.set_levels({Category.REQUESTS: Level.INFO})
            await trio.to_thread.run_sync(partial(fetch, tmp_path / "s", ("GET", "/livez")))
            async with await trio.open_unix_socket(tmp_path / "s") as stream:
                await stream.send_all(b"rubbish\r\n\r\n")
                await stream.receive_some()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["event"], line.get("method"), line.get("target"), line["status"]) for line in lines] == [
        ("http.request", "GET", "/metrics", 200),
        ("http.request", "HEAD", "/nowhere?pin=1", 404),
        ("http.invalid", None, None, 400),
    ]
    assert lines[0]["seconds"] >= 0
    assert lines[0]["bytes"] > 0
