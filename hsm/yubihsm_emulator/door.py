"""The connector's HTTP interface, and beside it the emulator's own: the fault plan."""

import os
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, cast

from yubihsm_emulator.faults import Plan
from yubihsm_emulator.link import Link, LinkLost, Unreachable
from yubihsm_emulator.plan_reader import PlanError, read_json

CONNECTOR_VERSION: Final = "3.0.5"
MIN_BODY, MAX_BODY = 3, 3139
MAX_PLAN: Final = 1 << 20

API, STATUS, FAULTS = "/connector/api", "/connector/status", "/emulator/faults"
_METHODS: Final = {API: ("POST",), STATUS: ("GET",), FAULTS: ("GET", "PUT", "DELETE")}


class Door(ThreadingHTTPServer):
    """Listens, with a thread for each connection; frames take turns at the link.

    Closed by `server_close`; `serve_forever` and `shutdown` as usual.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], link: Link) -> None:
        self.link = link
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Visit)

    @property
    def address(self) -> tuple[str, int]:
        """Host and real port."""
        host, port = self.server_address[:2]
        return str(host), port

    @property
    def url(self) -> str:
        """Where clients find the connector."""
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of our errors; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Visit(BaseHTTPRequestHandler):
    """One connection: any number of requests one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_GET(self) -> None:
        self._route()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_GET  # noqa: N815 - named by http.server

    @property
    def _door(self) -> Door:
        return cast("Door", self.server)

    def handle_expect_100(self) -> bool:
        """Says at once that the body may come."""
        agreed = super().handle_expect_100()
        self.wfile.flush()
        return agreed

    def _route(self) -> None:
        path = self.path.partition("?")[0]
        methods = _METHODS.get(path)
        body = self._body()
        if methods is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.command not in methods:
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, Allow=", ".join(methods))
        elif path == API:
            self._frame(body)
        elif path == STATUS:
            self._answer(self._status().encode())
        else:
            self._faults(body)

    def _body(self) -> bytes:
        """What came with the request; nothing, and the end of the connection, when its length is not told or absurd."""
        told = self.headers.get("Content-Length", "")
        size = int(told) if told.isascii() and told.isdigit() else 0
        if size > MAX_PLAN or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return b""
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError("the client left in the middle of its request")
        return body

    def _frame(self, frame: bytes) -> None:
        """One frame for the device. Its own errors are good answers; 500 only when there is no device."""
        if not MIN_BODY <= len(frame) <= MAX_BODY:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        try:
            reply = self._door.link.transceive(frame)
        except Unreachable:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
        except LinkLost:
            self.close_connection = True
        else:
            self._answer(reply, "application/octet-stream")

    def _status(self) -> str:
        """The connector's description of itself, one `name=value` a line."""
        link = self._door.link
        host, port = self._door.address
        told = {
            "status": "OK" if link.present else "NO_DEVICE",
            "serial": f"{link.device.serial:010}",
            "version": CONNECTOR_VERSION,
            "pid": os.getpid(),
            "address": host,
            "port": port,
        }
        return "".join(f"{name}={value}\n" for name, value in told.items())

    def _faults(self, body: bytes) -> None:
        link = self._door.link
        try:
            if self.command == "PUT":
                link.replan(read_json(body))
            elif self.command == "DELETE":
                link.replan(Plan())
        except PlanError as error:
            self._answer(f"{error}\n".encode(), status=HTTPStatus.BAD_REQUEST)
        else:
            self._answer(link.plan.describe().encode(), "application/json")

    def _refuse(self, status: HTTPStatus, **headers: str) -> None:
        self._answer(f"{status.phrase}\n".encode(), status=status, **headers)

    def _answer(
        self, body: bytes, kind: str = "text/plain", *, status: HTTPStatus = HTTPStatus.OK, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Nothing is told of single requests."""
