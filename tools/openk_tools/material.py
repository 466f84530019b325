"""Bytes the user gives: from a file, from standard input, or asked for with the echo off.

They land in bytearrays, which their reader wipes after use: a Python string or bytes value could not be.
Growing a bytearray may leave a copy behind, so nothing here grows one: a larger one is made, filled, and the
smaller one wiped.
"""

from __future__ import annotations

import hmac
import os
import stat
import sys
import termios
from typing import Final

import click

from openk_tools.values import Value

MOST: Final = 16 << 20
"""No daemon takes a larger message; reading stops there instead of filling the memory."""

_FIRST: Final = 64 << 10
STDIN: Final = "-"


def wipe(*buffers: Value) -> None:
    """Overwrite every bytearray among `buffers`, and those inside maps and lists; leave anything else."""
    for buffer in buffers:
        if isinstance(buffer, bytearray):
            buffer[:] = bytes(len(buffer))
        elif isinstance(buffer, dict):
            wipe(*buffer.values())
        elif isinstance(buffer, list):
            wipe(*buffer)


def read(source: str, *, what: str = "input") -> bytearray:
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


def trim(buffer: bytearray) -> bytearray:
    """`buffer` without one line end behind it (`\\n` or `\\r\\n`); shrinking leaves nothing behind."""
    for end in (b"\r\n", b"\n"):
        if buffer.endswith(end):
            buffer[-len(end) :] = bytes(len(end))
            del buffer[-len(end) :]
            break
    return buffer


def ask(label: str, *, again: bool) -> bytearray:
    """One line from the controlling terminal, echo off, without its line end; `again` asks twice and compares.

    It reads the terminal itself and not standard input, so that a pipe may carry something else.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        message = f"There is no terminal to ask for the {label} on: give it by a file or on standard input."
        raise click.UsageError(message) from None
    try:
        first = _line(terminal, f"{label}: ")
        if again:
            second = _line(terminal, f"{label} (again): ")
            same = hmac.compare_digest(first, second)
            wipe(second)
            if not same:
                wipe(first)
                message = "The two differ: nothing was sent."
                raise click.UsageError(message)
        return first
    finally:
        os.close(terminal)


def _line(terminal: int, prompt: str) -> bytearray:
    saved = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
    try:
        os.write(terminal, prompt.encode())
        # The terminal hands over a line at most 4096 long, so one read takes it whole.
        buffer = bytearray(4096)
        count = os.readv(terminal, [buffer])
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, saved)
        os.write(terminal, b"\n")
    if count == 0:
        raise click.Abort
    line = buffer[:count]
    wipe(buffer)
    return trim(line)


def _drain(descriptor: int, what: str) -> bytearray:
    status = os.fstat(descriptor)
    size = status.st_size + 1 if stat.S_ISREG(status.st_mode) else _FIRST
    buffer = bytearray(min(size, MOST + 1))
    filled = 0
    while True:
        with memoryview(buffer)[filled:] as room:
            count = os.readv(descriptor, [room])
        if count == 0:
            break
        filled += count
        if filled > MOST:
            wipe(buffer)
            message = f"The {what} is larger than {MOST >> 20} MiB, the most a message can hold."
            raise click.ClickException(message)
        if filled == len(buffer):
            buffer = _larger(buffer)
    del buffer[filled:]  # never written to: nothing to wipe
    return buffer


def _larger(buffer: bytearray) -> bytearray:
    larger = bytearray(min(len(buffer) * 2, MOST + 1))
    larger[: len(buffer)] = buffer
    wipe(buffer)
    return larger
