"""Processes of openk on a kernel, in a container or under a limit that lacks something: a seccomp filter around the real
process answers some calls with an error.

    with start(folder, "openk_daemon", *arguments, denied=[["memfd_secret", ENOSYS, None, 0]]) as started:
        assert started.settled() == "waits", started.log
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WRAPPED: Final = """
import json, os, resource, sys
from openk_memory import kernel, seccomp
library = seccomp.library()
context = library.seccomp_init(seccomp.ALLOW)
denied, limit = json.loads(sys.argv[1])
if limit is not None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    for capability in (14, 24):  # IPC_LOCK, SYS_RESOURCE: gone with the exec
        kernel.libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
for name, error, argument, value in denied:
    compare = None if argument is None else seccomp._Compare(argument, seccomp.MASKED_EQUAL, 0xFFFFFFFF, value)
    assert seccomp._deny(context, name, error, compare), name
assert library.seccomp_load(context) == 0
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""

Denied = Sequence[Sequence[object]]
"""What is answered with an error: call, errno, and the number and value of the argument that decides, or None and 0."""
ENOSYS: Final = 38
EPERM: Final = 1


class Start:
    """A process that is starting: a daemon without a worker, so a start that goes well ends in waiting for one; or a
    worker, with `--ready-fd 1`, whose sign of being ready is an empty line."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def settled(self) -> str:
        """ "waits" or the exit status."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            status = self.process.poll()
            if status is not None:
                return str(status)
            if "hsm.awaited" in self.log or "" in self.log.splitlines():
                return "waits"
            time.sleep(0.02)
        raise AssertionError(self.log)

    def said(self, event: str) -> list[dict[str, object]]:
        """The lines of the log about it."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]


@contextmanager
def start(
    folder: Path,
    module: str,
    *arguments: str,
    denied: Denied = (),
    limit: int | None = None,
    root: bool = False,
    **environment: str,
) -> Generator[Start]:
    """`python -m module arguments`. `limit`: RLIMIT_MEMLOCK, bytes, which it may not raise. `root`: as root, in a user
    namespace where it must be."""
    become = ["unshare", "--user", "--map-root-user"] if root and os.geteuid() else []
    command = [*become, sys.executable, "-c", WRAPPED, json.dumps([denied, limit]), module, *arguments]
    log_file = folder / "start.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment}
        )
    try:
        yield Start(process, log_file)
    finally:
        process.kill()
        process.wait()
