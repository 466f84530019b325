"""Run a piece of Python in a fresh process: for what kills, confines or starves the process that tries it."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

DROP = """
import ctypes, os
def drop():
    # Root may do anything, so that a refusal would prove nothing. Non-dumpable follows a change of uid: undo that.
    if os.getuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
"""
"""Defines `drop()`: continue as nobody, without capabilities, dumpable as any process is at first.
Import everything before: the interpreter's files may be out of nobody's reach."""


def run_child(code: str, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """`code` (dedented, `drop` defined) under this interpreter; its output captured, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", DROP + dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def check_child(code: str, *arguments: str) -> str:
    """The output of a child that must succeed."""
    done = run_child(code, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
