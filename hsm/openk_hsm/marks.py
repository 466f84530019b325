"""Files that say something about a token for ever: written durably, in the worker's state folder, one a token."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path


def mark_path(folder: Path, uri: str, name: str) -> Path:
    """Where the mark `pin-<token>.<name>` of the token that `uri` names lies."""
    return folder / f"pin-{hashlib.sha256(uri.encode()).hexdigest()[:16]}.{name}"


def write_mark(path: Path, **facts: str) -> None:
    """Durable when this returns, the folder's entry too. Raises OSError."""
    record = {"time": time.time(), **facts}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, json.dumps(record).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(path)


def remove_mark(path: Path) -> bool:
    """Whether it was there. Durable when this returns. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _sync_folder(path)
    return True


def is_marked(path: Path) -> bool:
    """Also when the file cannot be looked at: what a mark forbids is the thing to avoid."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
