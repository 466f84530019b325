"""A YubiHSM for tests: `yubihsm-emulator` over HTTP, set up as docs/hsm.md tells operators to.

with emulated() as device:
    device.add_authentication_key(2, b"secret")        what openk needs, no more
    run_cli("init", "--uri", device.uri(2), ...)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from yubihsm import YubiHsm
from yubihsm.core import AuthSession
from yubihsm.defs import AUDIT, CAPABILITY, COMMAND
from yubihsm.objects import AuthenticationKey

from openk_hsm.inline import InlineLane
from openk_hsm.roots import ROOT_MAC, roots
from openk_hsm.seam import Algorithm, Mechanism, OpCode, Operation, Resident
from openk_hsm.uri import parse_uri
from openk_hsm.yubihsm.backend import YubiHsmBackend
from openk_hsm.yubihsm.kinds import ATTESTATION_NEEDS, DELEGATED_NEEDS, SESSION_NEEDS
from openk_hsm.yubihsm.transport import Connector
from tests.support.tokens import run_cli

FACTORY_KEY = 1
FACTORY_PASSWORD = "password"
OPENK_KEY = 2
PASSWORD = b"a long enough password"
_QUIET = {COMMAND.GET_LOG_ENTRIES, COMMAND.SESSION_MESSAGE, COMMAND.ERROR}
EVERY = tuple(command for command in COMMAND if command not in _QUIET)
"""But those whose audit makes no sense, or is refused."""


@dataclass
class ReachableDevice:
    """An emulator behind its connector's port, wherever it runs."""

    port: int

    def uri(self, key: int = OPENK_KEY, **query: str) -> str:
        more = "".join(f"&{name.replace('_', '-')}={value}" for name, value in query.items())
        return f"yubihsm:http://127.0.0.1:{self.port}?auth-key={key}{more}"

    @contextmanager
    def session(self, key: int = FACTORY_KEY, password: str = FACTORY_PASSWORD) -> Iterator[AuthSession]:
        """Another user of the device, through Yubico's own package."""
        with YubiHsm(Connector("127.0.0.1", self.port)) as hsm, hsm.create_session_derived(key, password) as session:
            yield session

    def add_authentication_key(
        self,
        key: int = OPENK_KEY,
        password: bytes = PASSWORD,
        *,
        domains: int = 1,
        capabilities: CAPABILITY = SESSION_NEEDS | ATTESTATION_NEEDS,
        delegated: CAPABILITY = DELEGATED_NEEDS,
        asymmetric: bool = False,
    ) -> None:
        with self.session() as session:
            if asymmetric:
                secret = PBKDF2HMAC(hashes.SHA256(), 32, b"Yubico", 10_000).derive(password)
                public = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1()).public_key()
                AuthenticationKey.put_public_key(session, key, "openk", domains, capabilities, delegated, public)
            else:
                AuthenticationKey.put_derived(
                    session, key, "openk", domains, capabilities, delegated, password.decode()
                )

    def audit(self, *, forced: bool = False, commands: Sequence[COMMAND] = EVERY) -> None:
        """Log these commands; `forced`: refuse them when the log is full."""
        with self.session() as session:
            session.set_command_audit(dict.fromkeys(commands, AUDIT.ON))
            if forced:
                session.set_force_audit(AUDIT.ON)

    def fault(self, do: str, *commands: str, **more: object) -> None:
        """From now on this goes wrong, and nothing else does. No `do`: nothing."""
        plan = {"faults": [{"do": do, **({"commands": list(commands)} if commands else {}), **more}] if do else []}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("PUT", "/emulator/faults", json.dumps(plan))
            assert connection.getresponse().status < 300


@dataclass
class EmulatedDevice(ReachableDevice):
    """A running emulator. Its process may be killed and started again with `start` (with a state file)."""

    process: subprocess.Popen[bytes]


@contextmanager
def emulated(*options: str, port: int = 0) -> Generator[EmulatedDevice]:
    """A device as it leaves the factory, in a process of its own; killed at the end."""
    device = start(*options, port=port)
    try:
        yield device
    finally:
        device.process.kill()
        device.process.wait()


def start(*options: str, port: int = 0) -> EmulatedDevice:
    """The caller kills it."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "yubihsm_emulator", "--listen", f"127.0.0.1:{port}", "--ready-fd", str(writing)]
    process = subprocess.Popen([*command, *options], pass_fds=(writing,), stdout=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as ready:
        url = ready.read().strip()
    return EmulatedDevice(int(url.rpartition(":")[2]), process)


def initialise(device: ReachableDevice, folder: Path, uri: str = "", password: bytes = PASSWORD) -> Path:
    """openk's root keys on it; the folder is the worker's state. The file with the password."""
    pin = folder / "pin"
    pin.write_bytes(password + b"\n")
    run_cli("init", "--uri", uri or device.uri(), "--pin-file", str(pin), "--state", str(folder))
    return pin


def lane_on(
    device: EmulatedDevice,
    *,
    complete: bool = True,
    state: Path | None = None,
    password: bytes = PASSWORD,
    key: int = OPENK_KEY,
    **query: str,
) -> InlineLane:
    backend = YubiHsmBackend(parse_uri(device.uri(key, **query)), roots=complete, state=state)
    pin = bytearray(password)
    return InlineLane(backend, pin=lambda: memoryview(pin))


@contextmanager
def lane_of(device: EmulatedDevice, **how: object) -> Iterator[InlineLane]:
    lane = lane_on(device, **how)  # type: ignore[arg-type]  # by name
    try:
        yield lane
    finally:
        lane.close()


def make_roots(lane: InlineLane) -> None:
    for root in roots(Algorithm.AES_256_CCM, Algorithm.ED25519):
        assert isinstance(root.source, Resident)
        lane.generate_resident(root.spec, root.source.label, root.source.id).result()


def mac(lane: InlineLane, data: bytes = b"question") -> bytes:
    done = lane.submit(Operation(OpCode.MAC, 32, ROOT_MAC, Mechanism.HMAC_SHA_256, data)).result()
    assert isinstance(done, bytes)
    return done
