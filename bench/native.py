"""The two C programs, compiled when needed into the run's folder: the raw loops and the client."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


class NoCompiler(Exception):
    """There is no C compiler: `apt install gcc libc6-dev`."""


def build(name: str, folder: Path) -> Path:
    """Compile `name`.c into `folder`; returns the program. Raises NoCompiler, or CalledProcessError for bad code."""
    compiler = shutil.which("cc")
    if compiler is None:
        message = "bench needs a C compiler for its yardstick: apt install gcc libc6-dev"
        raise NoCompiler(message)
    program = folder / name
    if not program.exists():
        source = HERE / f"{name}.c"
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, "-ldl"], check=True)
    return program
