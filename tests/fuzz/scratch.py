"""A folder of this process, in memory where the system has such, for targets that read files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def scratch(name: str) -> Path:
    """Made once a process, removed at its end."""
    memory = "/dev/shm"
    folder = Path(tempfile.mkdtemp(prefix=f"openk-fuzz-{name}-", dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
