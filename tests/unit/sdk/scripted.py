"""A daemon that misbehaves as a test says: one script for each connection, in the order in which they come."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgpack

HELLO = {"version": "0.1.0", "caller": {"uid": 0}, "limits": {"message_bytes": 1 << 16, "in_flight": 64}}


class Peer:
    """The daemon's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._unpacker = msgpack.Unpacker()
        self.requests: list[tuple[int, str, dict[str, object]]] = []

    def take(self) -> tuple[int, str, dict[str, object]]:
        """The next request that is not hello, which is answered."""
        while True:
            for _, msgid, method, params in self._unpacker:
                if method == "system.hello":
                    self.answer(msgid, HELLO)
                    continue
                self.requests.append((msgid, method, params[0]))
                return self.requests[-1]
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._unpacker.feed(data)

    def answer(self, msgid: int, result: object, error: object = None) -> None:
        self.socket.sendall(msgpack.packb([1, msgid, error, result]))

    def answer_with_nonsense(self, count: int) -> None:
        """So many pings, all at once and with nonsense behind, in one piece."""
        asked = [self.take() for _ in range(count)]
        good = [msgpack.packb([1, msgid, None, {"echo": params["echo"]}]) for msgid, _, params in asked]
        self.socket.sendall(b"".join(good) + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.socket.recv(1)

    def echo(self) -> None:
        """Answer pings for as long as they come."""
        while True:
            msgid, _, params = self.take()
            self.answer(msgid, {"echo": params.get("echo", b"")})


Script = Callable[[Peer], None]


class Scripted:
    """Listens while `with` lasts; after a script returns its connection is closed; after the last one, the socket."""

    def __init__(self, path: Path, *scripts: Script) -> None:
        self.path = str(path)
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._scripts = scripts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        if kind is None and self.failures:
            raise self.failures[0]

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        with contextlib.suppress(OSError):
            for script in self._scripts:
                connection, _ = self._listener.accept()
                peer = Peer(connection)
                self.peers.append(peer)
                thread = threading.Thread(target=self._play, args=(script, peer), daemon=True)
                thread.start()
                threads.append(thread)
        for thread in threads:
            thread.join(5)

    def _play(self, script: Script, peer: Peer) -> None:
        try:
            script(peer)
        except OSError:
            pass
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failures.append(error)
        finally:
            peer.socket.close()


@contextlib.contextmanager
def scripted(path: Path, *scripts: Script) -> Iterator[Scripted]:
    with Scripted(path / "socket", *scripts) as server:
        yield server


def echo(peer: Peer) -> None:
    peer.echo()


def vanish(peer: Peer) -> None:
    """Take one request and close without an answer."""
    peer.take()
