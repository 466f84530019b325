"""Runs the command line inside the test's process, its three standard streams being files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from openk_tools.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    out: bytes
    err: str


def run(arguments: Sequence[str], stdin: bytes = b"") -> Ran:
    """`openk ARGUMENTS` with `stdin` as its input; standard output and error as they were written."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        with _streams(given.fileno(), out.fileno(), err.fileno()):
            status = main(arguments)
        out.seek(0)
        err.seek(0)
        return Ran(status, out.read(), err.read().decode())


@contextmanager
def _streams(*descriptors: int) -> Iterator[None]:
    saved = [os.dup(number) for number in range(3)]
    before = sys.stdin, sys.stdout, sys.stderr
    for stream in before[1:]:
        stream.flush()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, mode, closefd=False), encoding="utf-8", write_through=number > 0)
        for number, mode in enumerate(("r", "w", "w"))
    )
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
            os.close(descriptor)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
