"""Branch coverage of the processes that tests start: openkd, workers, the monitor, the command line.

    python -m tests.support.measured install            every later start of this venv's interpreter looks at OPENK_MEASURED
    python -m tests.support.measured collect FOLDER     what the processes left there, as data files for `coverage combine`

OPENK_MEASURED names the folder for it; unset, nothing happens. openkd and its workers confine themselves, and may then
write no file of ours: so the file is opened first, the counting happens in memory, and the end writes through the open
descriptor. A process that is killed tells nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import site
import sys
import time
from pathlib import Path
from typing import Final

import coverage

ROOT: Final = Path(__file__).parents[2]
HOOK: Final = "import os, runpy; 'OPENK_MEASURED' in os.environ and runpy.run_path({path!r})\n"


def install() -> None:
    """A .pth file: the only way into a process that is started with a clean command line."""
    folder = Path(next(path for path in site.getsitepackages() if path.startswith(sys.prefix)))
    (folder / "openk_measured.pth").write_text(HOOK.format(path=str(ROOT / "tests/support/measured_hook.py")))


def start() -> None:
    """Measure this process until it ends."""
    folder, pid = Path(os.environ["OPENK_MEASURED"]), os.getpid()
    sink = os.open(folder / f"{pid}-{time.monotonic_ns()}.child", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    measuring = coverage.Coverage(data_file=None, config_file=str(ROOT / "pyproject.toml"))
    measuring.set_option("run:disable_warnings", ["module-not-imported", "module-not-measured", "no-data-collected"])
    measuring.start()

    def finish() -> None:
        if os.getpid() == pid:  # not in a fork
            measuring.stop()
            os.write(sink, measuring.get_data().dumps())

    atexit.register(finish)


def collect(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.glob("*.child"))):
        with contextlib.suppress(coverage.CoverageException):  # killed in the middle of its last words
            if content := path.read_bytes():
                data = coverage.CoverageData(str(folder / f"child.{number}"))
                data.loads(content)
                data.write()
        path.unlink()


if __name__ == "__main__":
    if sys.argv[1] == "install":
        install()
    else:
        collect(Path(sys.argv[2]))
