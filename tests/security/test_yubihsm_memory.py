"""A worker of a YubiHSM keeps no password, no key that is derived from it, no session key and no plaintext outside locked
memory: at rest, while the device works, after a session was lost; sealed or closed, nowhere at all. Yubico's package
does, and serves as the control that the scan can find them.

Workers run without memfd_secret, so that the scan also sees what is in their locked memory; with the allocator's settings
(docs/threat-model.md, S10) and, where it does not depend on them, without."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from openk_hsm.lane import WorkerLane
from openk_hsm.roots import ROOT_DATA_CCM
from openk_hsm.seam import Mechanism, OpCode, Operation
from openk_memory.environment import WORKER, worker_environment
from tests.security.test_scan_finds_leaks import victim
from tests.support.scan import Hit, scan, unlocked
from tests.support.tokens import answer, lane_over, start_worker
from tests.support.yubihsm import initialise
from tests.support.yubihsm_witness import witnessed

OPEN_MEMORY: Final = (sys.executable, str(Path(__file__).parents[1] / "support" / "without_secretmem.py"))
ALLOCATORS: Final[Mapping[str, Callable[[Mapping[str, str]], dict[str, str]]]] = {
    "recipe": worker_environment,
    "bare": lambda base: {name: value for name, value in base.items() if name not in {one.name for one in WORKER}},
}
LEAKY: Final = """
import sys
from yubihsm import YubiHsm
from openk_hsm.yubihsm.transport import Connector
password, port = sys.stdin.readline().strip(), int(sys.argv[1])
session = YubiHsm(Connector("127.0.0.1", port)).create_session_derived(2, password)
print("ready", flush=True)
sys.stdin.readline()
"""


def derived(password: bytes) -> list[bytes]:
    """The static key: what is derived of the password; as K-ENC and K-MAC, and whole, a scalar of P-256."""
    static = PBKDF2HMAC(hashes.SHA256(), 32, b"Yubico", 10_000).derive(password)
    return [static, static[:16], static[16:]]


def sealing(plain: bytes) -> Operation:
    return Operation(OpCode.ENCRYPT, len(plain) + 62, ROOT_DATA_CCM, Mechanism.WRAP_DATA, plain, b"c")


async def seal_and_open(lane: WorkerLane, plain: bytes) -> None:
    sealed = await answer(lane.submit(sealing(plain)))
    assert isinstance(sealed, bytes)
    into = memoryview(bytearray(len(plain)))
    opening = Operation(OpCode.DECRYPT, len(plain) + 62, ROOT_DATA_CCM, Mechanism.WRAP_DATA, sealed, b"c", into=into)
    assert await answer(lane.submit(opening)) == len(plain)
    assert bytes(into) == plain
    await answer(lane.notices(0))


@pytest.mark.parametrize(
    ("login", "allocator"),
    # Not asymmetric and bare: libcrypto leaves the static key in a block that it frees (N7).
    [("symmetric", "recipe"), ("symmetric", "bare"), ("asymmetric", "recipe")],
)
async def test_nothing_is_outside_locked_memory(login: str, allocator: str, tmp_path: Path) -> None:
    password = secrets.token_hex(16).encode()
    plain = secrets.token_bytes(32)
    kept = [password, *derived(password), plain]
    environment = ALLOCATORS[allocator](os.environ)
    with witnessed() as (device, witness):
        device.add_authentication_key(password=password, asymmetric=login == "asymmetric")
        uri = device.uri(authentication=login)
        pin, socket = initialise(device, tmp_path, uri, password), tmp_path / "s"
        before = len(witness.sessions)
        process = start_worker(uri, socket, pin, environment, prefix=OPEN_MEMORY)
        try:
            async with lane_over([socket]) as lane:
                await lane.ready()
                await seal_and_open(lane, plain)
                device.fault("lose-sessions", times=1)  # it opens another
                await seal_and_open(lane, plain)
                assert len(witness.sessions) == before + 2
                first, second = witness.needles(before), witness.needles(before + 1)
                hits = scan(process.pid, [*first, *second, *kept])
                assert unlocked(hits) == []
                found = {(3, "raw"): 1, (4, "raw"): 1, (5, "raw"): 1}
                assert where(hits, 6) == found, "the session's keys are in locked memory once, those of the old one nowhere"

                device.fault("delay", "WRAP_DATA", seconds=60.0)
                under_way = lane.submit(sealing(plain))
                await trio.sleep(0.2)
                assert unlocked(scan(process.pid, second)) == []
                device.fault("")
                await answer(under_way)

                lane.seal()
                with trio.fail_after(10):
                    await trio.to_thread.run_sync(process.wait)
                process = start_worker(uri, socket, pin, environment, prefix=OPEN_MEMORY)
                with trio.fail_after(10):
                    while not lane.logged_out:  # noqa: ASYNC110 - another process's state
                        await trio.sleep(0.01)
                assert len(witness.sessions) == before + 2
                assert scan(process.pid, [*second, password]) == []
        finally:
            process.kill()
            process.wait()


def where(hits: list[Hit], needles: int) -> dict[tuple[int, str], int]:
    """How often each of the first needles is found, in which form."""
    found: dict[tuple[int, str], int] = {}
    for hit in hits:
        if hit.needle < needles:
            found[hit.needle, hit.form] = found.get((hit.needle, hit.form), 0) + 1
    return found


def test_the_package_of_yubico_is_caught() -> None:
    password = secrets.token_hex(16).encode()
    with witnessed() as (device, witness):
        device.add_authentication_key(password=password)
        leaky = subprocess.Popen(
            [sys.executable, "-c", dedent(LEAKY), str(device.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with leaky:
            assert leaky.stdin is not None
            assert leaky.stdout is not None
            leaky.stdin.write(password + b"\n")
            leaky.stdin.flush()
            assert leaky.stdout.readline() == b"ready\n"
            found = {hit.needle for hit in unlocked(scan(leaky.pid, [*witness.needles(-1), password]))}
            leaky.stdin.write(b"\n")
        assert found == {0, 1, 2, 3}


CHANNEL: Final = """
import threading
from openk_memory import region
region.best_kind = lambda: region.Kind.LOCKED
from openk_hsm.yubihsm.channel import Channel, LinkLost
from yubihsm.defs import COMMAND
from yubihsm.exceptions import YubiHsmConnectionError

class Nowhere:
    def transceive(self, frame):
        raise YubiHsmConnectionError("nowhere")
class Given:
    def open_session(self, send, keys):
        sock.recv_into(keys)
        return 1, bytes(16)

def seal():
    while not stop.is_set():
        try:
            channel.exchange(COMMAND.ECHO, (bytes(1000),))
        except LinkLost:
            pass
sock.send(b"ready")
channel = Channel(Nowhere(), Given())
stop = threading.Event()
sealing = threading.Thread(target=seal)
sealing.start()
report(b"done")
stop.set()
sealing.join()
report(b"done")
channel.close()
report(b"done")
"""


def test_libcrypto_has_the_keys_of_a_session_while_it_seals_and_no_longer() -> None:
    """A thread that does nothing else, frozen until it was met in the act: what docs/threat-model.md (N7) says. It
    also shows that the scan knows these keys in both forms. The message done, nothing is left; closed, nowhere."""
    keys = [os.urandom(16) for _ in range(3)]
    with victim(CHANNEL) as process:
        assert process.sock.recv(10) == b"ready"
        process.give(b"".join(keys))
        met = set[str]()
        for _ in range(300):  # about every tenth time
            met |= {hit.form for hit in unlocked(scan(process.pid, keys[:1])) if not hit.in_registers}
            if met >= {"raw", "schedule"}:
                break
        assert met == {"raw", "schedule"}
        process.proceed()
        assert process.sock.recv(10) == b"done"
        hits = scan(process.pid, keys)
        assert unlocked(hits) == []
        assert where(hits, 3) == {(0, "raw"): 1, (1, "raw"): 1, (2, "raw"): 1}
        process.proceed()
        assert process.sock.recv(10) == b"done"
        assert scan(process.pid, keys) == []
        process.proceed()
