"""An openkd of the run's own, in a folder of its own, and what it uses of the machine."""

from __future__ import annotations

import os
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

import openk
from bench.baselines import finish

VAULT: Final = "bench"
CLOSED: Final = "closed"
"""A vault nobody may read secrets from, for the row of refusals."""

_CHECKOUT: Final = str(Path(__file__).parents[1])
_FORBID: Final = """// Made by bench: what is refused here is measured.
@id("bench")
forbid (principal, action == Action::"secret.get", resource)
when { resource.vault == "closed" };
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process: resident, proportional and locked bytes, and file descriptors."""

    name: str
    pid: int
    resident: int
    locked: int
    descriptors: int


class Daemon:
    """`openkd --dev folder`, stopped by `stack`. `ready_seconds` is from its start to its ready line.

    The first start makes a token and root keys, so the folder is used twice: the second start is the one timed.
    """

    def __init__(self, folder: Path, workers: int, stack: ExitStack, *, instead: str = "") -> None:
        """`instead`: the module to run, where it is a daemon changed for a comparison (bench.plain_openkd)."""
        self._instead = instead
        self.folder = folder
        self.socket = folder / "openkd.sock"
        self.workers = workers
        first = self._start(stack)
        finish(first)
        self._forbid()
        begin = time.perf_counter()
        self._child = self._start(stack)
        self.ready_seconds = time.perf_counter() - begin
        self.client = openk.Client(str(self.socket), timeout=60)
        stack.callback(self.client.close)
        self._furnish()

    def call(self, method: str, params: Mapping[str, object]) -> dict[str, object]:
        return dict(self.client.call(method, params))

    def usage(self) -> list[Usage]:
        """Each process of the daemon, itself first."""
        top = psutil.Process(self._child.pid)
        return [_usage(process) for process in (top, *top.children(recursive=True))]

    def _start(self, stack: ExitStack) -> subprocess.Popen[str]:
        command = [program(), "--dev", str(self.folder), "--workers", str(self.workers)]
        environment = None
        if self._instead:
            command[:1] = [sys.executable, "-m", self._instead]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([_CHECKOUT, os.environ.get("PYTHONPATH", "")])}
        log = stack.enter_context((self.folder.parent / f"{self.folder.name}.log").open("a", encoding="utf-8"))
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        stack.callback(finish, child)
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], 60)
        if not ready or str(self.socket) not in child.stdout.readline():
            message = f"openkd has not become ready; see {log.name}"
            raise RuntimeError(message)
        return child

    def _forbid(self) -> None:
        (self.folder / "policies" / "bench.cedar").write_text(_FORBID)

    def _furnish(self) -> None:
        """Vaults, one key of each kind that is measured, one secret in each vault."""
        for vault in (VAULT, CLOSED):
            self.call("vault.create", {"vault": vault})
            self.call("secret.put", {"secret": f"{vault}/password", "value": b"correct horse battery staple 32!"})
        for name, algorithm, protection in (
            ("p256", "p-256", "wrapped"),
            ("rsa", "rsa-2048", "wrapped"),
            ("hmac", "hmac-sha-256", "wrapped"),
            ("gcm", "aes-256-gcm", "cached"),
        ):
            self.call("key.create", {"key": f"{VAULT}/{name}", "algorithm": algorithm, "protection": protection})


def program() -> str:
    """The openkd of this environment, else the one on the path."""
    beside = Path(sys.executable).with_name("openkd")
    found = str(beside) if beside.exists() else shutil.which("openkd")
    if found is None:
        message = "openkd is not installed in this environment: pip install -e ."
        raise RuntimeError(message)
    return found


def _usage(process: psutil.Process) -> Usage:
    """Locked memory and descriptors are 0 where the kernel does not show them to us."""
    with process.oneshot():
        words = process.cmdline()
        name = " ".join(Path(word).name for word in words[:4] if not word.startswith("-"))
        resident = process.memory_info().rss
        try:
            descriptors = process.num_fds()
        except psutil.AccessDenied:
            descriptors = 0
    locked = 0
    with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmLck:"):
                locked = int(line.split()[1]) * 1024
    return Usage(name, process.pid, resident, locked, descriptors)


def raise_file_limit() -> int:
    """As many open files as this user may have, for us and the daemons we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def memory_folder() -> Path | None:
    """A folder whose files live in memory (fdatasync costs nothing there), or None."""
    folder = Path("/dev/shm")  # noqa: S108 - folders there are made by mkdtemp
    return folder if os.access(folder, os.W_OK) and os.path.ismount(folder) else None
