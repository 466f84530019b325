"""Metrics and health over HTTP/1.1 (RFC 9112), on a Unix socket and, where configured, on loopback TCP.

    GET /metrics   OpenMetrics 1.0.0 with exemplars for whoever accepts it, else the Prometheus text format
    GET /livez     200 as long as the event loop turns: a supervisor restarts what does not answer
    GET /readyz    200 while requests can be served, 503 with the reasons while they cannot
    HEAD of each

Metrics hold names of methods and counts, no names of keys, callers or secrets; who may read them is the socket's mode.
Over TCP every local user may: that is what configuring an address says.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Final, NamedTuple

import h11
import trio

from openk_daemon.observe.exposition import OPEN_TYPE, TEXT_TYPE, Family, render_parts
from openk_daemon.observe.health import Report, State
from openk_daemon.observe.log import Log

SCRAPES: Final = 8
"""Connections at once: a Prometheus server keeps one."""
SECONDS: Final = 10.0
"""For a request to come and its answer to go."""
IDLE: Final = 120.0
"""Between two requests: Prometheus' usual interval is a minute."""
TURN: Final = 0.002
"""Seconds of writing an exposition, after which requests have their turn."""
_RECEIVE: Final = 4096
_PLAIN: Final = "text/plain; charset=utf-8"
_TARGETS: Final = ("/metrics", "/livez", "/readyz")


class Answer(NamedTuple):
    status: int
    body: str
    type: str = _PLAIN
    allow: bool = False


class Scrape:
    """Serves `listeners`, which their maker closes, until cancelled."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        families: Callable[[], Iterable[Family]],
        health: Callable[[], Report] | None = None,
        log: Log | None = None,
    ) -> None:
        """`families`: everything that is exposed. `health`: never waits; without it nothing is served but metrics.
        `log` gets a line a request at debug, and one at warning for what is no request."""
        self._listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener)) for listener in listeners]
        self._families = families
        self._health = health
        self._log = log
        self._places = trio.CapacityLimiter(SCRAPES)

    async def run(self) -> None:
        await trio.serve_listeners(self._serve, self._listeners)

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
        patience = SECONDS
        while True:
            with trio.move_on_after(patience) as waiting:
                try:
                    request = await _next_request(protocol, stream)
                except h11.RemoteProtocolError as error:
                    if self._log is not None:
                        self._log.warning("http.invalid", None, status=error.error_status_hint)
                    await _answer(protocol, stream, Answer(error.error_status_hint, "bad request\n"))
                    return
                if request is None:
                    return
                waiting.deadline = trio.current_time() + SECONDS
                await self._reply(protocol, stream, request)
            if waiting.cancelled_caught or protocol.our_state is not h11.DONE:
                return
            try:
                protocol.start_next_cycle()
            except h11.LocalProtocolError:
                return
            patience = IDLE

    async def _reply(self, protocol: h11.Connection, stream: trio.SocketStream, request: h11.Request) -> None:
        since = monotonic()
        answer = await self._choose(request)
        await _answer(protocol, stream, answer, bare=request.method == b"HEAD")
        if self._log is not None and self._log.debugging:
            self._log.debug(
                "http.request",
                method=request.method.decode("ascii", "replace"),
                target=request.target.decode("ascii", "replace"),
                status=answer.status,
                bytes=len(answer.body),
                seconds=round(monotonic() - since, 6),
            )

    async def _choose(self, request: h11.Request) -> Answer:
        target = request.target.decode("ascii", "replace").partition("?")[0]
        if target not in _TARGETS or (target != "/metrics" and self._health is None):
            return Answer(404, f"there is {', '.join(_TARGETS)}\n")
        if request.method not in {b"GET", b"HEAD"}:
            return Answer(405, "only GET and HEAD\n", allow=True)
        if target == "/metrics":
            return await self._expose(openmetrics=_accepts_openmetrics(request))
        if target == "/livez" or self._health is None:
            return Answer(200, "ok\n")
        return _ready(self._health())

    async def _expose(self, *, openmetrics: bool) -> Answer:
        parts: list[str] = []
        since = monotonic()
        for part in render_parts(self._families(), openmetrics=openmetrics):
            parts.append(part)
            if monotonic() - since > TURN:
                await trio.lowlevel.checkpoint()
                since = monotonic()
        return Answer(200, "".join(parts), OPEN_TYPE if openmetrics else TEXT_TYPE)


def _ready(report: Report) -> Answer:
    """Degraded is ready: it serves."""
    lines = [f"{report.status}\n"]
    for name, finding in report.components.items():
        lines.append(f"{name}: {finding.state}{': ' if finding.reason else ''}{finding.reason}\n")
    return Answer(503 if report.status is State.FAILED else 200, "".join(lines))


def _accepts_openmetrics(request: h11.Request) -> bool:
    """Prometheus names what it prefers first and gives it the greater weight; who names it at all gets it."""
    return any(name == b"accept" and b"application/openmetrics-text" in value for name, value in request.headers)


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


async def _answer(protocol: h11.Connection, stream: trio.SocketStream, answer: Answer, *, bare: bool = False) -> None:
    """`bare`: without the body, which is only measured."""
    if protocol.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    body = answer.body.encode()
    headers = [("Content-Type", answer.type), ("Content-Length", str(len(body)))]
    if answer.allow:
        headers.append(("Allow", "GET, HEAD"))
    response = h11.Response(status_code=answer.status, headers=headers)
    events: list[h11.Event] = [response, h11.EndOfMessage()]
    if not bare:
        events.insert(1, h11.Data(data=body))
    await stream.send_all(b"".join(protocol.send(event) or b"" for event in events))
