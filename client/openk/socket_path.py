"""Where the daemon's socket is."""

from __future__ import annotations

import os
from typing import Final

DEFAULT_SOCKET: Final = "/run/openk/openkd.sock"
DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for one call, connecting included."""


def find_socket(path: str | os.PathLike[str] | None) -> str:
    """`path`, else OPENK_SOCKET, else the place the packages use."""
    if path is not None:
        return os.fspath(path)
    return os.environ.get("OPENK_SOCKET") or DEFAULT_SOCKET
