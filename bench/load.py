"""Drives load.c and reads what it measured."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import frames as wire


class LoadFailed(Exception):
    """The client stopped, or the server answered with errors where none were expected."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers a second, latencies in microseconds, the client's own CPU seconds, the first answer's bytes."""

    rate: float
    p50: float
    p99: float
    errors: int
    first_error: str
    first_reply: bytes
    client_cpu: float


@dataclass(frozen=True, slots=True)
class Load:
    """`seconds` are counted after `warm` seconds that are not; `framing` as load.c names it."""

    program: Path
    folder: Path
    warm: float
    seconds: float

    def run(
        self,
        socket: Path,
        name: str,
        frames: Sequence[bytes],
        *,
        connections: int = 1,
        depth: int = 1,
        framing: str = "msgpack",
        refused: bool = False,
    ) -> Measured:
        """Raises LoadFailed; with `refused` each answer must be an error, otherwise none may be."""
        path = self.folder / f"{name}.frames"
        wire.write(path, frames)
        command = [self.program, socket, path, framing, connections, depth, self.warm, self.seconds]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            message = f"{name}: the client stopped: {done.stderr.strip()}"
            raise LoadFailed(message)
        told = json.loads(done.stdout)
        measured = Measured(
            rate=told["count"] / told["seconds"],
            p50=told["p50_us"],
            p99=told["p99_us"],
            errors=told["errors"],
            first_error=told["first_error"],
            first_reply=bytes.fromhex(told["first_reply"]),
            client_cpu=told["cpu_seconds"],
        )
        if not told["count"]:
            message = f"{name}: no answer came in time"
            raise LoadFailed(message)
        if told["item_errors"] or (measured.errors and not refused):
            first = measured.first_error or "in a batch"
            message = f"{name}: {measured.errors or told['item_errors']} errors, the first: {first}"
            raise LoadFailed(message)
        if refused and measured.errors < told["count"]:
            message = f"{name}: {told['count'] - measured.errors} requests were not refused"
            raise LoadFailed(message)
        return measured
