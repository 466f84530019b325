"""Wiping and copying of views. Neither makes a temporary copy of what it is given."""

from __future__ import annotations

from ctypes import addressof, c_char

from openk_memory.kernel import fill
from openk_memory.lease import Lease


def wipe(target: memoryview | Lease | bytearray) -> None:
    """Overwrite all of it with zeros. Raises TypeError for memory that is read-only or not contiguous."""
    view = target.view if isinstance(target, Lease) else target
    if len(view) == 0:
        return
    fill(addressof(c_char.from_buffer(view)), 0, view.nbytes if isinstance(view, memoryview) else len(view))


def copy(into: memoryview, source: memoryview) -> int:
    """Copy `source` to the front of `into` (they may overlap); returns its length. ValueError if it does not fit."""
    length = len(source)
    if length > len(into):
        raise ValueError("the source is longer than the target")
    into[:length] = source
    return length
