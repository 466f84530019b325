"""A folder of this process for targets that read files. `python -m tests.fuzz` sets TMPDIR to one in memory, which it
removes: libFuzzer ends a process without asking anybody."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def scratch(name: str) -> Path:
    """Made once a process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix=f"openk-fuzz-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
