"""Processes that trace another; only root can trace one that is not dumpable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_SEIZE: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
def seize():
    assert libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0, ctypes.get_errno()   # PTRACE_SEIZE: it runs on
"""
_TRACE: Final = _SEIZE + """
seize()
print("traced", flush=True)
sys.stdin.read()
"""
TRACE_BRIEFLY: Final = _SEIZE + """
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        seize()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(child)
"""
"""Arguments: a thread, and how many processes attach to it and end, one after the other; it prints their ids."""


@contextmanager
def traced(pid: int) -> Generator[None]:
    """Somebody traces it, and lets it run."""
    assert os.geteuid() == 0, "only root can trace a process that is not dumpable"
    command = [sys.executable, "-c", _TRACE, str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
        assert tracer.stdout is not None
        try:
            assert tracer.stdout.readline() == b"traced\n"
            yield
        finally:
            tracer.kill()
