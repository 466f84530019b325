"""A secret asked for on the terminal: the one place where somebody types one, for commands and ceremonies alike."""

from __future__ import annotations

import hmac
import os
import termios
from typing import Final

import click

from openk_tools.held import room, trim, wipe

_LINE: Final = 4096
"""A terminal hands over a line at most so long (N_TTY_BUF_SIZE of Linux), and in one read."""


def ask(label: str, *, again: bool) -> memoryview:
    """One line from the controlling terminal, echo off, without its line end, where `held.room` keeps it; whoever asks
    wipes it. `again` asks twice and compares.

    It reads the terminal itself and not standard input, so that a pipe may carry something else. Raises
    click.UsageError where there is no terminal or the two differ, click.Abort at the end of input."""
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


def _line(terminal: int, question: str) -> memoryview:
    saved = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO
    line = room(_LINE)
    termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
    try:
        os.write(terminal, question.encode())
        count = os.readv(terminal, [line])
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, saved)
        os.write(terminal, b"\n")
    if count == 0:
        raise click.Abort
    return trim(line[:count])
