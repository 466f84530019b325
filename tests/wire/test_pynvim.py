"""pynvim, a MessagePack-RPC client that nobody here wrote, against a server made of nothing but openk.wire."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

from openk.wire.arguments import InvalidArguments, check
from openk.wire.codes import CODES
from openk.wire.methods import METHODS
from openk.wire.reader import Limits, Reader, Request
from openk.wire.writer import Writable, describe_error, lay_out_response, pack_response


def answer(request: Request) -> bytes:
    try:
        arguments = check(METHODS[request.method], request.params)
    except InvalidArguments as error:
        return pack_response(request.msgid, describe_error(CODES["request.invalid"], error.message, form="pair"), None)
    if request.method == "key.encrypt":
        results: list[Writable] = [{"ciphertext": item["input"], "version": 1} for item in arguments.items]
        result: Writable = {"results": results} if arguments.batch else results[0]
    else:
        echo = arguments.values.get("echo")
        result = {} if echo is None else {"echo": echo}
    return b"".join(lay_out_response(request.msgid, result))


def serve(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    reader, view, start, end = Reader(Limits()), memoryview(bytearray(1 << 16)), 0, 0
    with connection:
        while count := connection.recv_into(view[end:]):
            end += count
            while (message := reader.read(view, start, end)) is not None:
                start = reader.position
                if isinstance(message, Request):
                    connection.sendall(answer(message))


CALLS = """
import sys, pynvim
session = pynvim.socket_session(path=sys.argv[1])
print(session.request("system.ping"))
print(session.request("system.ping", {"echo": b"\\x00\\xff"}))
print(session.request("system.ping", {"echo": "text"}))
session.request("anything", 1, [2], {"three": None}, async_=True)
print(session.request("key.encrypt", {"key": "v/k", "input": b"abc"}))
found = session.request("key.encrypt", {"key": "v/k", "items": [{"input": b"%d" % n} for n in range(100)]})
print([result["ciphertext"] for result in found["results"]] == [b"%d" % n for n in range(100)])
try:
    session.request("key.encrypt", {"input": b"abc"})
except Exception as error:
    print(error)
"""


def test_calls_errors_and_notifications(tmp_path: Path) -> None:
    """In a process of its own: pynvim leaves its event loop open, which would be a warning here."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        run = subprocess.run(
            [sys.executable, "-c", CALLS, path], capture_output=True, text=True, timeout=30, check=False
        )
        thread.join(5)
    assert run.stdout.splitlines() == [
        "{}",
        r"{'echo': b'\x00\xff'}",
        "{'echo': b'text'}",
        "{'ciphertext': b'abc', 'version': 1}",
        "True",
        "request.invalid: key is missing",
    ], run.stderr
