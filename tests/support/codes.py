"""Which error codes the tests really bring about: with OPENK_CODES set to a folder, each run of pytest leaves one file
there, and `python -m tests.support.codes FOLDER` fails for a code that no test made our code raise.

What counts is an error that our own code makes, of its own accord. An error that a test makes, or that a fake tells, proves
nothing, nor does the second error that only passes the first one's code on: those are the RELAYS. What a worker or a daemon
tells counts where they are real processes of ours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Final

from openk.errors import Error
from openk.wire.codes import CODES
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, EntryTooLarge, UnknownEntry
from openk_daemon.config import ConfigError
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import StoreError
from openk_hsm.errors import HsmError

ROOT: Final = Path(__file__).parents[2]
OURS: Final = tuple(str(ROOT / room) + os.sep for room in ("client", "memory", "hsm", "daemon", "tools"))
ERRORS: Final = (
    Error, Refusal, HsmError, StoreError, ConfigError, AuditDamaged, AuditUnavailable, EntryTooLarge, UnknownEntry,
)  # fmt: skip
"""Everything that carries a code; with their subclasses."""
REAL_WORKERS: Final = ("tests/hsm_contract/", "tests/e2e/", "tests/recovery/", "tests/security/")
REAL_DAEMONS: Final = ("tests/e2e/", "tests/recovery/", "tests/security/")
RELAYS: Final = {
    "hierarchy/refusals.py": (),
    "openk_hsm/frames.py": REAL_WORKERS,
    "openk/errors.py": REAL_DAEMONS,
}
"""Where an error only repeats what somebody else told, and the tests in which that is real."""


class Recorder:
    """A plugin. `seen`: by code, where it was raised first and in which test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen: dict[str, list[str]] = {}
        for kind in ERRORS:
            _watch(kind, self.note)

    def note(self, code: str, frame: FrameType | None) -> None:
        """An error was made; `frame`: by whom. Its own constructors are not whom we look for."""
        while frame is not None and frame.f_code.co_name in {"__init__", "recording", "again"}:
            frame = frame.f_back
        if code in self.seen or frame is None:
            return
        path, test = frame.f_code.co_filename, os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
        if not test or not path.startswith(OURS):  # no test: made when a module is imported
            return
        for relay, real in RELAYS.items():
            if path.endswith(relay) and not test.startswith(real or ("nowhere",)):
                return
        self.seen[code] = [f"{os.path.relpath(path, ROOT)}:{frame.f_lineno}", test]

    def pytest_sessionfinish(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"codes-{os.getpid()}.json").write_text(json.dumps(self.seen, indent=1))


def _watch(kind: type[Exception], note: Callable[[str, FrameType | None], None]) -> None:
    made = kind.__init__

    @wraps(made)
    def recording(self: Exception, *args: object, **kwargs: object) -> None:
        made(self, *args, **kwargs)
        code = "daemon.misconfigured" if isinstance(self, ConfigError) else getattr(self, "code", "")
        note(getattr(code, "name", code), sys._getframe(1))

    kind.__init__ = recording  # type: ignore[method-assign, assignment]


def main(folder: str) -> int:
    seen: dict[str, list[str]] = {}
    for path in sorted(Path(folder).glob("codes-*.json")):
        seen = {**json.loads(path.read_text()), **seen}
    for code in CODES:
        place, test = seen.get(code, ["", "NO TEST BRINGS IT ABOUT"])
        print(f"{code:<26} {place:<52} {test}")
    missing = CODES.keys() - seen.keys()
    print(f"{len(CODES) - len(missing)} of {len(CODES)} error codes are brought about by a test")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
