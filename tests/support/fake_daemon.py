"""A daemon that says what a test wants: MessagePack-RPC on a Unix socket, in a thread, answers from a table.

It keeps each request's method and parameters in `requests`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from openk.wire.codes import CODES

Params = dict[str, object]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer. It goes out as a map: what this fake is asked by knows `system.hello`."""

    code: str
    message: str = ""
    retry_after: float | None = None
    details: Mapping[str, object] = field(default_factory=dict[str, object])


Answer = Mapping[str, object] | Refusal | Callable[[Params], "Mapping[str, object] | Refusal"]


class FakeDaemon:
    """Listens while `with` lasts. A method the table lacks is answered request.unknown_method."""

    def __init__(self, path: Path, answers: Mapping[str, Answer]) -> None:
        self.path = path
        self.answers = dict(answers)
        self.requests: list[tuple[str, Params]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def asked(self, method: str) -> list[Params]:
        """The parameters of each request for `method`."""
        return [params for name, params in self.requests if name == method]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = msgpack.Unpacker(raw=False)
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                reader.feed(data)
                for kind, msgid, method, params in reader:
                    assert kind == 0
                    reply = self._answer(method, params[0] if params else {})
                    error = _error(reply) if isinstance(reply, Refusal) else None
                    connection.sendall(msgpack.packb([1, msgid, error, None if error else reply]))

    def _answer(self, method: str, params: Params) -> Mapping[str, object] | Refusal:
        if method == "system.hello" and method not in self.answers:
            return {"version": "0.1.0", "caller": {"uid": 0}, "limits": {"message_bytes": 1 << 20, "in_flight": 64}}
        self.requests.append((method, params))
        answer = self.answers.get(method, Refusal("request.unknown_method"))
        return answer(params) if callable(answer) else answer


def _error(refusal: Refusal) -> dict[str, object]:
    told: dict[str, object] = {
        "code": refusal.code,
        "message": refusal.message or CODES[refusal.code].meaning,
        "request": "0192-test",
        "details": dict(refusal.details),
    }
    if refusal.retry_after is not None:
        told["retry_after"] = refusal.retry_after
    return told
