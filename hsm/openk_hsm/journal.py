"""A worker's log: JSON lines on stderr, by hand, because a worker imports little. Never a secret, never input bytes.
Under journald each begins with its priority (`<4>`, sd-daemon(3))."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Final

_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def log(level: str, event: str, **fields: object) -> None:
    """One line. `fields` are JSON values; foreign exceptions go in by type name only."""
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "event": event,
            "pid": os.getpid(), **fields}  # fmt: skip
    try:
        sys.stderr.write(f"{_prefix(level)}{json.dumps(line, default=str)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # whoever read our log has gone; the work goes on


def _prefix(level: str) -> str:
    """Where standard error is journald's (systemd.exec(5): JOURNAL_STREAM), the priority."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return ""
    status = os.fstat(2)
    return f"<{_PRIORITY.get(level, 6)}>" if named == f"{status.st_dev}:{status.st_ino}" else ""
