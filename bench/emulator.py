"""What an emulated YubiHSM costs beyond its work: python-yubihsm in a session, over HTTP, one command at a time."""

from __future__ import annotations

import hashlib
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from yubihsm.core import AuthSession, YubiHsm
from yubihsm.defs import ALGORITHM, CAPABILITY, COMMAND
from yubihsm.objects import AsymmetricKey

from bench.baselines import finish
from bench.result import Result, at_most
from bench.stage import Stage

MOST = 3000.0
"""Microseconds an operation."""
_PASSWORD = "password"  # noqa: S105 - of authentication key 1, as the factory leaves it
_LEAST = 10
"""Operations of each measurement, however short that is to be."""


def emulator(stage: Stage) -> list[Result]:
    """`echo` is all overhead: session, HTTP, both processes. Of a signature, what making it in this process takes is
    the work, and the rest overhead."""
    digest = hashlib.sha256(b"bench").digest()
    mine = ec.generate_private_key(ec.SECP256R1())
    with ExitStack() as stack:
        session = _session(stack)
        key = AsymmetricKey.generate(session, 0, "bench", 1, CAPABILITY.SIGN_ECDSA, ALGORITHM.EC_P256)
        public = key.get_public_key()  # type: ignore[no-untyped-call]  # the library's, which leaves it out
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(key.sign_ecdsa(b"bench"), b"bench", ec.ECDSA(hashes.SHA256()))
        echoed, signed, work = stage.in_turn(
            lambda: _median(lambda: session.send_secure_cmd(COMMAND.ECHO, digest), stage.seconds),
            lambda: _median(lambda: key.sign_ecdsa(b"bench"), stage.seconds),
            lambda: _median(lambda: mine.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))), stage.seconds),
        )
    over = max(0.0, signed - work)
    told = (f"{echoed:,.0f} µs", "-", "≤ 3 ms")
    shown = (f"{over:,.0f} µs ({signed:,.0f} - {work:,.0f})", "the same signature in this process", "≤ 3 ms")
    return [
        at_most("emulator.echo", "YubiHSM emulator: echo in a session, over HTTP", echoed, MOST, told),
        at_most("emulator.sign", "YubiHSM emulator: P-256 sign, over HTTP, overhead", over, MOST, shown),
    ]


def _session(stack: ExitStack) -> AuthSession:
    """Of an emulator of the run's own, in memory. `stack` ends both."""
    command = [sys.executable, "-m", "yubihsm_emulator", "--listen", "127.0.0.1:0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(finish, child)
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], 30)
    line: str = child.stdout.readline() if ready else ""
    url = next((word for word in line.split() if word.startswith("http://")), None)
    if url is None:
        message = "the emulator has not started; its message stands above"
        raise RuntimeError(message)
    device = YubiHsm.connect(url)
    stack.callback(device.close)
    session = device.create_session_derived(1, _PASSWORD)
    stack.callback(session.close)
    return session


def _median(operation: Callable[[], object], seconds: float) -> float:
    """Microseconds."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    while len(took) < _LEAST or time.perf_counter() < until:
        begin = time.perf_counter()
        operation()
        took.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(took)
