"""Throw-away SoftHSM2 tokens, workers on them, lanes over those.

One token is made a session (0.3 s); each test that may change it gets a copy of its files. A module belongs to a
process and reads SOFTHSM2_CONF once, so whatever opens a copy does it in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from openk_hsm.dialling import Limits
from openk_hsm.lane import WorkerLane, open_lane
from openk_hsm.pending import Pending, T, settle

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
URI = f"pkcs11:token=openk-dev?module-path={MODULE}"


@dataclass(frozen=True)
class Token:
    """A folder as `openk-hsm dev-token` makes it."""

    folder: Path
    uri: str = URI

    @property
    def pin_file(self) -> Path:
        return self.folder / "pin"

    @property
    def environment(self) -> dict[str, str]:
        """For the process that opens it."""
        return {**os.environ, "SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    def copy(self, folder: Path) -> Token:
        """Another token with the same keys, serial and PIN."""
        shutil.copytree(self.folder, folder)
        configuration = folder / "softhsm2.conf"
        configuration.write_text(configuration.read_text().replace(str(self.folder), str(folder)))
        for stale in folder.glob("pin-*"):
            stale.unlink()
        return Token(folder, self.uri)


def make_token(folder: Path) -> Token:
    """A fresh token with random PINs and root keys."""
    run_cli("dev-token", "--dir", str(folder))
    return Token(folder)


def run_cli(*arguments: str, environment: Mapping[str, str] | None = None, status: int = 0) -> str:
    """`openk-hsm` with these arguments; its stdout, or its stderr when a refusal is expected."""
    command = [sys.executable, "-m", "openk_hsm.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


@contextmanager
def worker(
    uri: str,
    socket: Path,
    pin_file: Path,
    environment: Mapping[str, str],
    *options: str,
    prefix: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """`openk-hsm serve`, ready. It is killed at the end. `prefix`: what the command begins with."""
    process = start_worker(uri, socket, pin_file, environment, *options, prefix=prefix)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start_worker(
    uri: str,
    socket: Path,
    pin_file: Path,
    environment: Mapping[str, str],
    *options: str,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """The caller kills it."""
    reading, writing = os.pipe()
    command = [
        *(*prefix, sys.executable, "-m", "openk_hsm.cli", "serve", "--uri", uri, "--socket", str(socket)),
        *("--pin-file", str(pin_file), "--ready-fd", str(writing), *options),
    ]
    process = subprocess.Popen(command, env=dict(environment), pass_fds=(writing,), stderr=subprocess.DEVNULL)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return process


@asynccontextmanager
async def lane_over(sockets: Sequence[Path], *, limits: Limits | None = None) -> AsyncIterator[WorkerLane]:
    """A running lane, not necessarily ready."""
    async with trio.open_nursery() as nursery:
        yield open_lane(
            nursery, "test", [str(path) for path in sockets], limits=limits or Limits(handoff_bytes=768 << 10)
        )
        nursery.cancel_scope.cancel()


async def answer(pending: Pending[T]) -> T:
    """What a lane answers, for a test that is a trio task."""

    async def wait() -> T:
        return await pending

    return await settle(wait())
