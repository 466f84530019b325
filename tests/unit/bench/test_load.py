"""The client of the bench counts what really came: any order, any chunks, any type; errors are never taken for work."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest

from bench import frames, native
from bench.load import Load, LoadFailed

RESULTS = [
    None, True, 0, 127, -1, -33, 200, 70_000, 1 << 40, -(1 << 40), 1.5, "", "a" * 31, "a" * 40, "a" * 300, "a" * 70_000,
    b"", b"x" * 300, b"x" * 70_000, [], [1] * 20, [[]] * 70_000, {}, {"a": {"b": [None]}}, {str(n): n for n in range(20)},
    msgpack.Timestamp(1, 2), msgpack.ExtType(5, b"12345"), msgpack.ExtType(5, b"x" * 300), msgpack.ExtType(5, b"x" * 16),
]  # fmt: skip


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("load")
    return Load(native.build("load", folder), folder, warm=0.02, seconds=0.15)


class Server:
    """Answers each request by `reply(msgid, method)`, requests of one read in random order, in random pieces."""

    def __init__(self, path: Path, reply: Callable[[int, str], object]) -> None:
        self.path, self.reply = path, reply
        self.answered = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        chance, reader = random.Random(1), msgpack.Unpacker()
        with connection:
            while True:
                try:
                    data = connection.recv(1 << 16)
                    if not data:
                        return
                    reader.feed(data)
                    replies = [msgpack.packb(self.reply(msgid, method)) for _, msgid, method, _ in reader]
                    chance.shuffle(replies)
                    self.answered += len(replies)
                    for piece in pieces(b"".join(replies), chance):
                        connection.sendall(piece)
                except OSError:
                    return  # the client stops in the middle when its time is over


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while data:
        size = chance.choice([1, 2, 7, 1000, 60_000])
        yield data[:size]
        data = data[size:]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Callable[[int, str], object]], Server]]:
    started: list[Server] = []

    def start(reply: Callable[[int, str], object]) -> Server:
        started.append(Server(tmp_path / f"s{len(started)}", reply))
        return started[-1]

    yield start
    for server in started:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()


REQUEST = [frames.request("key.sign", {"input": b"x" * 40}), frames.request("key.mac", {})]


def test_answers_of_every_type_are_walked(load: Load, serve: Callable[..., Server]) -> None:
    chance = random.Random(2)
    server = serve(lambda msgid, method: [1, msgid, None, chance.choice(RESULTS[:15] + RESULTS[16:18] + RESULTS[19:])])
    measured = load.run(server.path, "types", REQUEST, depth=8, connections=2)
    assert 0 < measured.rate * 0.15 <= server.answered
    assert 0 < measured.p50 <= measured.p99


@pytest.mark.parametrize("index", range(len(RESULTS)))
def test_each_type_alone(load: Load, serve: Callable[..., Server], index: int) -> None:
    server = serve(lambda msgid, method: [1, msgid, None, RESULTS[index]])
    quick = Load(load.program, load.folder, warm=0, seconds=0.1)
    assert quick.run(server.path, f"type-{index}", REQUEST, depth=3).rate > 0


def test_all_slots_are_in_flight_and_both_frames_go_out(load: Load, serve: Callable[..., Server]) -> None:
    seen: set[tuple[int, str]] = set()

    def reply(msgid: int, method: str) -> object:
        seen.add((msgid, method))
        return [1, msgid, None, {}]

    load.run(serve(reply).path, "slots", REQUEST, depth=32)
    assert {msgid for msgid, _ in seen} == set(range(32))
    assert {method for _, method in seen} == {"key.sign", "key.mac"}


def test_one_error_fails_the_run_and_is_named(load: Load, serve: Callable[..., Server]) -> None:
    calls = iter(range(1 << 60))
    server = serve(lambda msgid, method: [1, msgid, [300, "hsm.unavailable: gone"] if next(calls) == 50 else None, {}])
    with pytest.raises(LoadFailed, match=r"1 errors, the first: .*hsm.unavailable: gone"):
        load.run(server.path, "error", REQUEST, depth=4)


def test_an_error_inside_a_batch_fails_the_run(load: Load, serve: Callable[..., Server]) -> None:
    server = serve(
        lambda msgid, method: [1, msgid, None, {"results": [{"mac": b""}, {"error": {"code": "key.unknown"}}]}]
    )
    with pytest.raises(LoadFailed, match="in a batch"):
        load.run(server.path, "batch", REQUEST)


def test_refusals_are_counted_where_they_are_wanted(load: Load, serve: Callable[..., Server]) -> None:
    server = serve(lambda msgid, method: [1, msgid, [120, "policy.denied: no"], None])
    assert load.run(server.path, "refused", REQUEST, refused=True).rate > 0
    server = serve(lambda msgid, method: [1, msgid, None, {}])
    with pytest.raises(LoadFailed, match="were not refused"):
        load.run(server.path, "allowed", REQUEST, refused=True)


def test_garbage_and_a_closed_connection_stop_it(load: Load, serve: Callable[..., Server]) -> None:
    with pytest.raises(LoadFailed, match="not an answer"):
        load.run(serve(lambda msgid, method: {"no": "answer"}).path, "garbage", REQUEST)
    with pytest.raises(LoadFailed, match="connect"):
        load.run(load.folder / "nobody", "nobody", REQUEST)


def test_ssh_frames_are_counted(load: Load, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent"))
    listener.listen()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):  # the client closes in the middle when its time is over
            while data := connection.recv(1 << 16):
                assert data == frames.ssh_sign(b"blob", b"data")
                connection.sendall(struct.pack(">IB", 5, 14) + b"sign")

    thread = threading.Thread(target=answer)
    thread.start()
    assert load.run(tmp_path / "agent", "ssh", [frames.ssh_sign(b"blob", b"data")], framing="ssh").rate > 0
    thread.join(5)
    listener.close()
