"""An emulated YubiHSM as clients meet it: in this process behind the `yubihsm` package, or as a process of its own."""

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from yubihsm.backends import YhsmBackend
from yubihsm.core import AuthSession, YubiHsm
from yubihsm.exceptions import YubiHsmConnectionError

from tests.support.clock import Clock
from yubihsm_emulator.backend import EmulatorBackend
from yubihsm_emulator.device import Device
from yubihsm_emulator.faults import Plan
from yubihsm_emulator.link import Link

PASSWORD = "password"
"""Of authentication key 1, as the factory leaves it."""


class InProcess(EmulatorBackend, YhsmBackend):
    """What `YubiHsm` takes: the package wants its own base class, for type checkers only."""


@dataclass
class Stand:
    """A device in this process and a client of it."""

    device: Device
    link: Link
    clock: Clock

    @classmethod
    def new(cls, plan: Plan | None = None) -> "Stand":
        clock = Clock()
        device = Device(12345678, clock=clock)
        return cls(device, Link(device, plan=plan), clock)

    def connect(self) -> YubiHsm:
        return YubiHsm(InProcess(self.link, YubiHsmConnectionError))

    def session(self) -> AuthSession:
        return self.connect().create_session_derived(1, PASSWORD)


class Emulator:
    """`yubihsm-emulator` as a process, ready when made; a context manager that ends it."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "yubihsm_emulator", "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        found = re.match(r"listening on (http://127\.0\.0\.1:\d+) ", self.greeting)
        if found is None:
            raise AssertionError(f"not ready: {self.greeting!r} {self.process.communicate(timeout=10)}")
        self.url = found[1]

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGTERM)

    def kill(self, number: signal.Signals) -> tuple[int, str]:
        """Exit status and what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


def refusal(*options: str) -> str:
    """What an emulator says that does not start; its exit status must not be 0."""
    done = subprocess.run(
        [sys.executable, "-m", "yubihsm_emulator", *options], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode in {1, 2}, done
    return done.stderr


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
