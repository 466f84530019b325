"""A worker of a YubiHSM keeps no password, no derived key and no plaintext outside locked memory; Yubico's package does,
and serves as the control that the scan can find them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from openk_hsm.seam import ROOT_DATA_CCM, Mechanism, OpCode, Operation
from tests.support.scan import scan, unlocked
from tests.support.tokens import answer, lane_over, start_worker
from tests.support.yubihsm import emulated, initialise

LEAKY = """
import sys
from yubihsm import YubiHsm
from openk_hsm.yubihsm.transport import Connector
password, port = sys.stdin.readline().strip(), int(sys.argv[1])
session = YubiHsm(Connector("127.0.0.1", port)).create_session_derived(2, password)
print("ready", flush=True)
sys.stdin.readline()
"""


def derived(password: bytes) -> bytes:
    return PBKDF2HMAC(hashes.SHA256(), 32, b"Yubico", 10_000).derive(password)


async def test_nothing_of_password_keys_and_plaintexts_is_outside_locked_memory(tmp_path: Path) -> None:
    password = secrets.token_hex(16).encode()
    plain = secrets.token_bytes(32)
    needles = [password, derived(password), plain]
    with emulated() as device:
        device.add_authentication_key(password=password)
        pin = initialise(device, tmp_path, password=password)
        socket = tmp_path / "s"
        process = start_worker(device.uri(), socket, pin, os.environ)
        try:
            async with lane_over([socket]) as lane:
                await lane.ready()
                for trouble in ("", "lose-sessions"):  # a session opened again leaves nothing either
                    device.fault(trouble, times=1) if trouble else device.fault("")
                    seal = Operation(OpCode.ENCRYPT, 94, ROOT_DATA_CCM, Mechanism.WRAP_DATA, plain, b"c")
                    sealed = await answer(lane.submit(seal))
                    assert isinstance(sealed, bytes)
                    into = memoryview(bytearray(32))
                    open_ = Operation(OpCode.DECRYPT, 94, ROOT_DATA_CCM, Mechanism.WRAP_DATA, sealed, b"c", into=into)
                    assert await answer(lane.submit(open_)) == 32
                    assert bytes(into) == plain
                await answer(lane.notices(0))
                assert unlocked(scan(process.pid, needles)) == []
        finally:
            process.kill()
            process.wait()
        leaky = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", dedent(LEAKY), str(device.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with leaky:
            assert leaky.stdin is not None
            assert leaky.stdout is not None
            leaky.stdin.write(password + b"\n")
            leaky.stdin.flush()
            assert leaky.stdout.readline() == b"ready\n"
            found = {hit.needle for hit in unlocked(scan(leaky.pid, needles))}
            leaky.stdin.write(b"\n")
        assert 0 in found
