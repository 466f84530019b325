"""Bytes the user gives by a file or on standard input; `prompt` asks for what is typed.

They land where `held.room` keeps them, and are wiped by their reader after use.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import Final

import click

from openk_tools.held import room, wipe

MOST: Final = 16 << 20
"""No daemon takes a larger message; reading stops there instead of filling the memory."""

_FIRST: Final = 64 << 10
STDIN: Final = "-"


def read(source: str, *, what: str = "input") -> memoryview:
    """All of the file `source`, or of standard input for `-`. Raises click.ClickException when it cannot be read
    or is larger than `MOST`."""
    if source == STDIN:
        if sys.stdin.isatty():
            click.echo(f"(reading the {what} from the terminal; end it with Ctrl-D)", err=True)
        return _drain(0, what)
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise click.FileError(source, error.strerror or "cannot be read") from None
    try:
        return _drain(descriptor, what)
    except OSError as error:
        raise click.FileError(source, error.strerror or "cannot be read") from None
    finally:
        os.close(descriptor)


def _drain(descriptor: int, what: str) -> memoryview:
    status = os.fstat(descriptor)
    size = status.st_size + 1 if stat.S_ISREG(status.st_mode) else _FIRST
    buffer = room(min(size, MOST + 1))
    filled = 0
    while True:
        count = os.readv(descriptor, [buffer[filled:]])
        if count == 0:
            return buffer[:filled]
        filled += count
        if filled > MOST:
            wipe(buffer)
            message = f"The {what} is larger than {MOST >> 20} MiB, the most a message can hold."
            raise click.ClickException(message)
        if filled == len(buffer):
            buffer = _larger(buffer)


def _larger(buffer: memoryview) -> memoryview:
    larger = room(min(len(buffer) * 2, MOST + 1))
    larger[: len(buffer)] = buffer
    wipe(buffer)
    return larger
