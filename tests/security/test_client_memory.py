"""A program that gives secrets to the SDK in buffers, and wipes those and the Secrets it gets: nothing of them is left in
it, with the blocking and with the trio client. With plain `bytes` something is, as the SDK's documents say."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.test_scan_finds_leaks import victim
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

PROMPT = """
from openk_tools import material
os.setsid()
os.open(sys.argv[2], os.O_RDWR)  # its controlling terminal from now on
sock.send(b"ready")
value = material.ask("Value", again=True)
assert len(value) == 32
material.wipe(value)
report(b"done")
"""


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


def test_nothing_whole_is_left_of_what_was_typed_at_a_prompt() -> None:
    """The command line's: twice the same, on a terminal, without echo. Pieces that vector registers carried may lie in
    dead stack frames until the command ends (docs/threat-model.md, N9): the daemon scrubs those, the command line does
    not."""
    canary = secrets.token_hex(16).encode()
    terminal, other = os.openpty()
    with victim(PROMPT, os.ttyname(other)) as process:
        assert process.sock.recv(10) == b"ready"
        for _ in range(2):
            while b": " not in os.read(terminal, 1000):
                continue
            os.write(terminal, canary + b"\n")
        assert process.sock.recv(10) == b"done"
        hits = [hit for hit in scan(process.pid, [canary]) if not hit.in_registers]
        assert {(hit.form, hit.mapping) for hit in hits} <= {("piece", "[stack]")}
        process.proceed()
    os.close(terminal)
    os.close(other)
