"""Bytes the user gets: raw on standard output, into a file, or as base64 or hex text.

On a terminal, raw means what can be read: text is written as it is, other bytes would only disturb the terminal.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import stat
import sys
from dataclasses import dataclass
from typing import Final, TypeAlias

import click

Buffer: TypeAlias = bytes | bytearray | memoryview

_TEXT: Final = re.compile(
    rb"""(?x: [\t\n\x20-\x7e]                                   # well-formed UTF-8 (table 3-7 of the Unicode standard)
    | \xc2[\xa0-\xbf] | [\xc3-\xdf][\x80-\xbf]                  # without controls but tab and line feed
    | \xe0[\xa0-\xbf][\x80-\xbf] | [\xe1-\xec\xee\xef][\x80-\xbf]{2} | \xed[\x80-\x9f][\x80-\xbf]
    | \xf0[\x90-\xbf][\x80-\xbf]{2} | [\xf1-\xf3][\x80-\xbf]{3} | \xf4[\x80-\x8f][\x80-\xbf]{2}
    )*+"""
)
"""Decoding would leave a copy of it behind."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to write: `form` is raw, base64 or hex; `force` writes raw bytes even to a terminal."""

    form: str = "raw"
    force: bool = False


def is_text(value: Buffer) -> bool:
    """Whether a terminal shows `value` as it is: UTF-8 without control characters but tab and line feed."""
    return _TEXT.fullmatch(value) is not None


def emit(value: Buffer, *, secret: bool, way: Way, out: str) -> None:
    """Write `value` to standard output, and refuse secret bytes that are no text on a terminal.

    Other bytes become base64 there. `out` is the option that names a file, for the advice.
    """
    if way.form != "raw":
        _write(1, _encoded(value, way.form) + b"\n")
        return
    terminal = sys.stdout.isatty()
    if not terminal or way.force:
        _write(1, value)
        return
    if is_text(value):
        _write(1, value)
        if bytes(memoryview(value)[-1:]) != b"\n":
            _write(1, b"\n")
        return
    if secret:
        message = (
            f"This is binary and would only disturb the terminal: use {out} FILE, a pipe, --base64, or --raw to insist."
        )
        raise click.UsageError(message)
    _write(1, _encoded(value, "base64") + b"\n")


def save(path: str, value: Buffer, *, secret: bool, way: Way) -> None:
    """Write `value` to `path`: whole or not at all, readable by its owner only when it is secret.

    What exists and is no plain file (a pipe, /dev/null) is written to; `-` is standard output.
    """
    content = value if way.form == "raw" else _encoded(value, way.form) + b"\n"
    if path == "-":
        _write(1, content)
        return
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write(descriptor, content)
        finally:
            os.close(descriptor)
        return
    path = os.path.realpath(path)  # a symbolic link stays one
    part = f"{path}.{secrets.token_hex(4)}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if secret else 0o666)
    try:
        try:
            _write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _encoded(value: Buffer, form: str) -> bytes:
    return base64.b64encode(value) if form == "base64" else bytes(value).hex().encode()


def _write(descriptor: int, value: Buffer) -> None:
    if descriptor == 1:
        sys.stdout.flush()  # keep the order of what click printed before
    with memoryview(value).cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(descriptor, rest[done:])
