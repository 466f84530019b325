"""A program that gives secrets to the SDK in buffers, and wipes those and the Secrets it gets: nothing of them is left in
it, with the blocking and with the trio client. With plain `bytes` something is, as the SDK's documents say. The command
line is such a program: nothing is left of what was typed, piped, read from a file, or shown."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.security.test_scan_finds_leaks import Victim, victim
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.scan import Hit, scan
from tests.support.secret_work import Line

__all__ = ["template"]

BLOCKING = """
import openk
with openk.Client(sys.argv[2]) as client:
    client.system.ping()
    given = {form}(32)
    sock.send(b"ready")
    {receive}
    client.secret.put("v/one", given)
    with client.secret.get("v/one").value as value:
        assert len(value) == 32
        sealed = client.key.encrypt("v/seal", value)
    with client.key.decrypt("v/seal", sealed.ciphertext).plaintext as plain:
        client.secret.put("v/map", fields=dict(password=plain, again=memoryview(plain)))
    fields = client.secret.get("v/map").fields
    for value in fields.values():
        value.wipe()
    {wipe}
    report(b"done")
"""
TRIO = """
import trio, openk.trio
async def main():
    async with openk.trio.Client(sys.argv[2]) as client:
        await client.system.ping()
        given = {form}(32)
        sock.send(b"ready")
        {receive}
        await client.secret.put("v/one", given)
        with (await client.secret.get("v/one")).value as value:
            sealed = await client.key.encrypt("v/seal", value)
        with (await client.key.decrypt("v/seal", sealed.ciphertext)).plaintext as plain:
            assert len(plain) == 32
        {wipe}
        report(b"done")
trio.run(main)
"""
WIPED = {"form": "bytearray", "receive": "sock.recv_into(given)", "wipe": "given[:] = bytes(32)"}
PLAIN = {"form": "bytes", "receive": "given = sock.recv(32)", "wipe": "del given"}

COMMAND = """
from openk_tools import cli
os.setsid()
for place in sys.argv[2].split():  # NUMBER=PATH; the first terminal is its controlling terminal from now on
    number, _, path = place.partition("=")
    opened = os.open(path, os.O_RDWR if "/dev/" in path else os.O_WRONLY if number == "1" else os.O_RDONLY)
    os.dup2(opened, int(number))
status = cli.main(sys.argv[3:])
assert status == 0, status
report(b"done")
"""
"""`openk`, which does not end."""


@pytest.fixture(scope="module")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = copy_template(template, tmp_path_factory.mktemp("client") / "dev")
    with running_daemon(folder) as running:
        line = Line(running.socket)
        line.ask("vault.create", vault="v")
        line.ask("key.create", key="v/seal", algorithm="aes-256-gcm")
        line.close()
        yield running


def left(daemon: RunningDaemon, program: str, how: dict[str, str]) -> list[Hit]:
    canary = os.urandom(32)
    with victim(program.format(**how), str(daemon.socket)) as process:
        assert process.sock.recv(10) == b"ready"
        process.give(canary)
        hits = scan(process.pid, [canary])
        process.proceed()
    return [hit for hit in hits if not hit.in_registers]


@pytest.mark.parametrize("program", [BLOCKING, TRIO], ids=["blocking", "trio"])
def test_nothing_is_left_of_what_was_wiped(daemon: RunningDaemon, program: str) -> None:
    assert left(daemon, program, WIPED) == []


def test_plain_bytes_stay(daemon: RunningDaemon) -> None:
    assert left(daemon, BLOCKING, PLAIN) != []


class Terminal:
    """One that a command reads from or writes to. Closed by `with`."""

    def __enter__(self) -> Terminal:
        self._ours, self._theirs = os.openpty()
        self.path = os.ttyname(self._theirs)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)
        os.close(self._theirs)

    def type(self, line: bytes) -> None:
        """When asked."""
        while b": " not in os.read(self._ours, 1000):
            continue
        os.write(self._ours, line + b"\n")

    def wait_for(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            seen += os.read(self._ours, 1000)


@contextmanager
def openk(daemon: RunningDaemon, *command: str, places: str = "") -> Iterator[Victim]:
    """`openk command`; `places`: what its descriptors are."""
    with victim(COMMAND, places, "--socket", str(daemon.socket), *command) as process:
        yield process


def of_canary(process: Victim, canary: bytes) -> list[Hit]:
    """What is in it, registers excepted, when the command has done its work."""
    assert process.sock.recv(10) == b"done"
    time.sleep(0.02)
    return [hit for hit in scan(process.pid, [canary]) if not hit.in_registers]


@pytest.fixture
def canary() -> bytes:
    return secrets.token_hex(16).encode()


@pytest.mark.parametrize(("options", "times"), [((), 2), (("--field", "password"), 1)], ids=["value", "field"])
def test_nothing_is_left_of_what_was_typed(
    daemon: RunningDaemon, canary: bytes, options: tuple[str, ...], times: int
) -> None:
    with (
        Terminal() as terminal,
        openk(daemon, "secret", "put", "v/typed", *options, places=f"0={terminal.path}") as process,
    ):
        for _ in range(times):
            terminal.type(canary)
        assert of_canary(process, canary) == []


@pytest.mark.parametrize("size", [32, 5000, 200_000])
def test_nothing_is_left_of_what_was_piped(daemon: RunningDaemon, canary: bytes, size: int, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with openk(daemon, "secret", "put", "v/piped", places=f"0={pipe}") as process:
        pipe.write_bytes(canary * (size // 32))
        assert of_canary(process, canary) == []


def test_nothing_is_left_of_what_a_file_holds(daemon: RunningDaemon, canary: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(canary)
    with openk(daemon, "secret", "put", "v/file", "--from-file", str(file)) as process:
        assert of_canary(process, canary) == []


@pytest.fixture
def shown(daemon: RunningDaemon, canary: bytes) -> str:
    """The name of a secret that is the canary."""
    line = Line(daemon.socket)
    line.ask("secret.put", secret="v/shown", value=canary)
    line.close()
    return "v/shown"


def test_nothing_is_left_of_what_went_into_a_pipe(
    daemon: RunningDaemon, shown: str, canary: bytes, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with openk(daemon, "secret", "get", shown, places=f"1={pipe}") as process:
        with pipe.open("rb") as reading:
            assert reading.read(32) == canary
        assert of_canary(process, canary) == []


def test_nothing_is_left_of_what_a_terminal_showed(daemon: RunningDaemon, shown: str, canary: bytes) -> None:
    with Terminal() as terminal, openk(daemon, "secret", "get", shown, places=f"1={terminal.path}") as process:
        terminal.wait_for(canary)
        assert of_canary(process, canary) == []


def test_nothing_is_left_of_what_went_into_a_file(
    daemon: RunningDaemon, shown: str, canary: bytes, tmp_path: Path
) -> None:
    with openk(daemon, "secret", "get", shown, "--out", str(tmp_path / "file")) as process:
        assert of_canary(process, canary) == []
    assert (tmp_path / "file").read_bytes() == canary


def test_what_is_shown_as_json_stays(daemon: RunningDaemon, shown: str, canary: bytes) -> None:
    """As the documents say; and the search sees it."""
    with Terminal() as terminal, openk(
        daemon, "--json", "secret", "get", shown, places=f"1={terminal.path}"
    ) as process:
        terminal.wait_for(b"}")
        assert of_canary(process, canary) != []
