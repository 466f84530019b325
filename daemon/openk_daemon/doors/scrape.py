"""Prometheus metrics over HTTP/1.1 (RFC 9112) on a Unix socket: GET /metrics and nothing else.

Metrics hold names of methods and counts, no names of keys, callers or secrets; who may read them is the socket's mode.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import h11
import trio

SCRAPES: Final = 8
"""Connections at once: a Prometheus server keeps one."""
SECONDS: Final = 10.0
"""For a request to come and its answer to go, and between two requests."""
_RECEIVE: Final = 4096
_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Scrape:
    """Serves `listener`, which its maker closes, until cancelled."""

    def __init__(self, listener: socket.socket, expose: Callable[[], str]) -> None:
        """`expose`: everything in the Prometheus text format."""
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._expose = expose
        self._places = trio.CapacityLimiter(SCRAPES)

    async def run(self) -> None:
        await trio.serve_listeners(self._serve, [self._listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection. What a client does wrong ends its connection and nothing else."""
        try:
            async with stream:
                try:
                    self._places.acquire_nowait()
                except trio.WouldBlock:
                    return
                try:
                    await self._converse(stream)
                finally:
                    self._places.release()
        except trio.BrokenResourceError:
            return

    async def _converse(self, stream: trio.SocketStream) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_RECEIVE)
        while True:
            with trio.move_on_after(SECONDS) as patience:
                try:
                    request = await _next_request(protocol, stream)
                except h11.RemoteProtocolError as error:
                    await _answer(protocol, stream, error.error_status_hint, b"bad request\n")
                    return
                if request is None:
                    return
                await _answer(protocol, stream, *self._choose(request))
            if patience.cancelled_caught or protocol.our_state is not h11.DONE:
                return
            try:
                protocol.start_next_cycle()
            except h11.LocalProtocolError:
                return

    def _choose(self, request: h11.Request) -> tuple[int, bytes]:
        if request.target != b"/metrics":
            return 404, b"metrics are at /metrics\n"
        if request.method != b"GET":
            return 405, b"only GET\n"
        return 200, self._expose().encode()


async def _next_request(protocol: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """The next request with its body read and dropped; None when the client has gone."""
    request: h11.Request | None = None
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await stream.receive_some(_RECEIVE))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None


async def _answer(protocol: h11.Connection, stream: trio.SocketStream, status: int, body: bytes) -> None:
    if protocol.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [(b"Content-Type", _TYPE), (b"Content-Length", str(len(body)).encode())]
    response = h11.Response(status_code=status, headers=headers)
    sent = [protocol.send(event) or b"" for event in (response, h11.Data(data=body), h11.EndOfMessage())]
    await stream.send_all(b"".join(sent))
