"""The metrics door, spoken to by the standard library's HTTP client and by rude ones."""

from __future__ import annotations

import http.client
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from openk_daemon.doors import scrape
from openk_daemon.doors.scrape import Scrape
from openk_daemon.serve import listen


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


@asynccontextmanager
async def door(path: Path) -> AsyncGenerator[None]:
    listener = listen(str(path), 0o600, None)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Scrape(listener, lambda: "openk_up 1\n").run)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.close()


def fetch(path: Path, *asked: tuple[str, str]) -> list[tuple[int, bytes]]:
    connection = UnixHttp(path)
    answers: list[tuple[int, bytes]] = []
    for method, target in asked:
        connection.request(method, target)
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
    assert answers[0][1] == b"openk_up 1\n"


@pytest.mark.parametrize("rubbish", [b"\x00\xff" * 100, b"GET /metrics HTTP/1.1\r\n\r\n\r\n", b"A" * 9000 + b"\r\n\r\n"])
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
