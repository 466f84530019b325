"""What openk is measured against, each in a process of its own that waits while openk is measured."""

from __future__ import annotations

import os
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
LABEL: Final = "openk-bench"


class Missing(Exception):
    """A program or a library this baseline needs is not installed; the text says which."""


class Token:
    """A SoftHSM2 token of its own inside `folder`, apart from openk's: its loops must not share files with openk."""

    def __init__(self, folder: Path) -> None:
        found = [path for path in MODULES if os.path.exists(path)]
        if not found or shutil.which("softhsm2-util") is None:
            message = "SoftHSM2 is not installed: apt install softhsm2"
            raise Missing(message)
        self.module = found[0]
        self.pin = secrets.token_hex(8)
        tokens = folder / "tokens"
        tokens.mkdir()
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {**os.environ, "SOFTHSM2_CONF": str(config)}
        # A token nobody needs after the run: that its PIN is seen in the list of processes does no harm.
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", self.pin, "--so-pin", self.pin]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)


class Loops:
    """A process that reads `OP SECONDS` and answers `OPERATIONS SECONDS`; closed by `stack`."""

    def __init__(self, command: list[str], token: Token, stack: ExitStack) -> None:
        child = subprocess.Popen(
            [*command, token.module, LABEL],
            env=token.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        stack.callback(finish, child)
        assert child.stdin is not None
        assert child.stdout is not None
        self.pid = child.pid
        self._stdin: IO[str] = child.stdin
        self._stdout: IO[str] = child.stdout
        self._ask(token.pin)

    def rate(self, operation: str, seconds: float) -> float:
        """Operations a second, over about `seconds`."""
        done, took = self._ask(f"{operation} {seconds}").split()
        return int(done) / float(took)

    def _ask(self, line: str) -> str:
        self._stdin.write(f"{line}\n")
        self._stdin.flush()
        answer = self._stdout.readline()
        if not answer:
            message = "a baseline's process has stopped; its message stands above"
            raise RuntimeError(message)
        return answer


def finish(child: subprocess.Popen[str]) -> None:
    """End `child` and wait for it."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def python_loops(token: Token, stack: ExitStack) -> Loops:
    return Loops([sys.executable, "-m", "bench.python_pkcs11"], token, stack)


def start_echo(socket: Path, size: int, stack: ExitStack) -> None:
    """The trio echo of frames of `size` bytes (0: of requests), listening on `socket`."""
    command = [sys.executable, "-m", "bench.echo", str(socket), str(size)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(finish, child)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        message = "the echo server has not started"
        raise RuntimeError(message)


def fdatasync(folder: Path, seconds: float) -> tuple[float, float]:
    """Append 4 KiB and fdatasync, again and again; median and 99th percentile in microseconds."""
    took: list[float] = []
    path = folder / "fdatasync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    block, until = bytes(4096), time.perf_counter() + seconds
    try:
        while time.perf_counter() < until or len(took) < 20:
            begin = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            took.append((time.perf_counter() - begin) * 1e6)
    finally:
        os.close(descriptor)
        path.unlink()
    took.sort()
    return statistics.median(took), took[int(0.99 * (len(took) - 1))]
