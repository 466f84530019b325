"""The least a trio server of frames can do: `python -m bench.echo SOCKET SIZE` answers each frame of SIZE bytes with
itself, in one process, with `wait_readable` and direct recv and send. Answers that are ready together leave together.

It knows where frames end because all have one size; a server that must read them does strictly more.
"""

from __future__ import annotations

import socket
import sys

import trio


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
    with connection:
        rest = b""
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
            data = rest + data
            whole = len(data) - len(data) % size
            replies = [data[at : at + size] for at in range(0, whole, size)]
            rest = data[whole:]
            if not await send(connection, b"".join(replies)):
                return


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
