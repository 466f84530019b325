"""A worker's log: JSON lines on stderr, by hand, because a worker imports little. Never a secret, never input bytes."""

from __future__ import annotations

import json
import os
import sys
import time


def log(level: str, event: str, **fields: object) -> None:
    """One line. `fields` are JSON values; foreign exceptions go in by type name only."""
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": level, "event": event,
            "pid": os.getpid(), **fields}  # fmt: skip
    try:
        sys.stderr.write(json.dumps(line, default=str) + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # whoever read our log has gone; the work goes on
