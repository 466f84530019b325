from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

PROGRAM = """
import json, os, sys
from pathlib import Path
from openk_hsm.monitor import Child, run
children = [Child(name, [sys.executable, "-c", code], dict(os.environ), essential=essential)
            for name, code, essential in json.loads(sys.argv[2])]
sys.exit(run(children, pids=Path(sys.argv[1])))
"""
SLEEP = "import time; time.sleep(60)"


def start(tmp_path: Path, *children: tuple[str, str, bool]) -> tuple[subprocess.Popen[bytes], Path]:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", PROGRAM, str(pids), json.dumps(children)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL), pids


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def read(pids: Path) -> dict[str, int]:
    return cast(dict[str, int], json.loads(pids.read_text())) if pids.exists() else {}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_child_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    monitor, pids = start(tmp_path, ("worker", SLEEP, False), ("daemon", SLEEP, True))
    until(lambda: len(read(pids)) == 2)
    first = read(pids)
    os.kill(first["worker"], signal.SIGKILL)
    until(lambda: read(pids)["worker"] != first["worker"])
    assert read(pids)["daemon"] == first["daemon"]
    monitor.terminate()
    assert monitor.wait(10) == 0
    assert not any(lives(pid) for pid in [*first.values()])
    assert not pids.exists()


def test_the_daemon_started_last_is_stopped_first(tmp_path: Path) -> None:
    def child(name: str) -> str:
        return (
            "import signal, sys, time\n"
            f"def stop(*_):\n    open({str(tmp_path / 'order')!r}, 'a').write({name!r})\n    sys.exit(0)\n"
            f"signal.signal(signal.SIGTERM, stop); open({str(tmp_path / name)!r}, 'w'); time.sleep(60)"
        )

    monitor, _ = start(tmp_path, ("worker", child("w"), False), ("daemon", child("d"), True))
    until(lambda: (tmp_path / "w").exists() and (tmp_path / "d").exists())
    monitor.terminate()
    assert monitor.wait(10) == 0
    assert (tmp_path / "order").read_text() == "dw"


def test_a_child_that_keeps_dying_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(75)"
    monitor, _ = start(tmp_path, ("worker", code, False))
    time.sleep(1.2)
    monitor.terminate()
    monitor.wait(10)
    assert 2 <= len((tmp_path / "starts").read_text()) <= 8


def test_an_essential_child_that_cannot_go_on_ends_everything_with_its_status(tmp_path: Path) -> None:
    monitor, pids = start(
        tmp_path, ("worker", SLEEP, False), ("daemon", "import time; time.sleep(.3); raise SystemExit(78)", True)
    )
    until(lambda: len(read(pids)) == 2)
    worker = read(pids)["worker"]
    assert monitor.wait(10) == 78
    assert not lives(worker)


def test_hangup_is_passed_on(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        f"signal.signal(signal.SIGHUP, lambda *_: open({str(tmp_path / 'hup')!r}, 'w'))\n"
        f"open({str(tmp_path / 'up')!r}, 'w')\nwhile True: time.sleep(1)"
    )
    monitor, _ = start(tmp_path, ("daemon", code, True))
    until((tmp_path / "up").exists)
    monitor.send_signal(signal.SIGHUP)
    until((tmp_path / "hup").exists)
    monitor.terminate()
    monitor.wait(10)


def test_children_do_not_outlive_a_killed_monitor(tmp_path: Path) -> None:
    monitor, pids = start(tmp_path, ("worker", SLEEP, False))
    until(lambda: len(read(pids)) == 1)
    worker = read(pids)["worker"]
    until(lambda: b"time.sleep" in Path(f"/proc/{worker}/cmdline").read_bytes())
    monitor.kill()
    monitor.wait()
    until(lambda: not lives(worker))
