"""MessagePack-RPC frames by the `msgpack` library, typed: for tests that speak to a socket without our client."""

from __future__ import annotations

import socket
from typing import Any, cast

import msgpack  # type: ignore[import-untyped]  # it has no types

Message = list[object]


def pack(message: object) -> bytes:
    return cast("bytes", msgpack.packb(message))  # pyright: ignore[reportUnknownMemberType]  # no types


def request(method: str, params: object, msgid: int = 7) -> bytes:
    return pack([0, msgid, method, [params]])


class Raw:
    """A connection without a client."""

    def __init__(self, path: str, seconds: float = 20) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)
        self.socket.connect(path)
        self._unpacker: Any = msgpack.Unpacker(raw=False)  # pyright: ignore[reportUnknownMemberType]  # it has no types

    def send(self, frame: bytes) -> None:
        self.socket.sendall(frame)

    def answer(self) -> Message | None:
        """The next response; None when the daemon has closed."""
        while True:
            for message in self._unpacker:
                return cast("Message", message)
            try:
                received = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not received:
                return None
            self._unpacker.feed(received)

    def answers(self) -> dict[object, Message]:
        """All until the daemon closes, by msgid."""
        found: dict[object, Message] = {}
        while (message := self.answer()) is not None:
            found[message[1]] = message
        return found

    def close(self) -> None:
        self.socket.close()
