"""The least a trio server of frames can do: `python -m bench.echo SOCKET SIZE` answers each frame of SIZE bytes with
itself, in one process, with `wait_readable` and direct recv and send. Answers that are ready together leave together.

It knows where frames end because all have one size; a server that must read them does strictly more. With SIZE 0 it
is the least that speaks the protocol: msgpack unpacks each request, and packs what it held as the answer.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]  # it has no stubs
import trio

from openk.wire.packing import pack


async def serve(path: str, size: int) -> None:
    """Until killed. Prints `ready` when it listens."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    listener.setblocking(False)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            connection, _ = listener.accept()
            connection.setblocking(False)
            nursery.start_soon(answer, connection, size)


async def answer(connection: socket.socket, size: int) -> None:
    """Serve one connection until it closes."""
    turn = turn_frames(size) if size else turn_messages()
    with connection:
        while True:
            try:
                data = connection.recv(1 << 18)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(connection)
                continue
            except ConnectionResetError:
                return
            if not data:
                return
            if not await send(connection, b"".join(turn(data))):
                return


def turn_frames(size: int) -> Callable[[bytes], list[bytes]]:
    """What was received to the frames that are complete."""
    rest = b""

    def turn(data: bytes) -> list[bytes]:
        nonlocal rest
        data = rest + data
        whole = len(data) - len(data) % size
        rest = data[whole:]
        return [data[at : at + size] for at in range(0, whole, size)]

    return turn


class Requests(Protocol):
    """msgpack's Unpacker, of which it says no types: requests out of what it was fed."""

    def feed(self, data: bytes) -> None: ...

    def __iter__(self) -> Iterator[tuple[int, int, str, object]]: ...


def turn_messages() -> Callable[[bytes], list[bytes]]:
    """What was received to answers that hold what the requests held."""
    reader = cast("Requests", msgpack.Unpacker())  # pyright: ignore[reportUnknownMemberType]

    def turn(data: bytes) -> list[bytes]:
        reader.feed(data)
        return [pack([1, msgid, None, params]) for _, msgid, _, params in reader]

    return turn


async def send(connection: socket.socket, data: bytes) -> bool:
    """All of `data`; False when the other side has gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[connection.send(view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connection)
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
