"""Tracers that come and go between two looks at TracerPid: the kernel tells of each. Without its telling, looking alone
misses them."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from openk.errors import Error
from openk_memory.ptrace_events import Heard, PtraceEvents
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.tracing import TRACE_BRIEFLY, traced

__all__ = ["template"]

CHILDREN: Final = ["openkd", "hsm-0"]
TOLD: Final = {"openkd": "tamper.traced", "hsm-0": "a process traces this worker"}
MORE: Final = {"openkd": "more processes traced openkd", "hsm-0": "more processes traced this worker"}
SEALED: Final = {"hsm-0": "tamper.worker_sealed", "openkd": "tamper.traced"}
WITHOUT_EVENTS: Final = ("unshare", "--net")
"""The kernel tells in the host's network namespace only."""


def attack(thread: int, times: int = 1) -> list[int]:
    """So many processes, one after the other, attach to a thread and end at once. Their ids."""
    command = [sys.executable, "-c", TRACE_BRIEFLY, str(thread), str(times)]
    return [int(pid) for pid in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def noticed(daemon: RunningDaemon, child: str, tracers: Sequence[int]) -> list[int]:
    """Those of `tracers` that are told of, as many times as they are."""
    lines = [line for line in daemon.log.splitlines() if TOLD[child] in line]
    found = [int(pid) for line in lines for pid in re.findall(r"tracer\W+(\d+)", line)]
    return [pid for pid in found if pid in tracers]


def linger(daemon: RunningDaemon, child: str) -> None:
    """A tracer that stays until it is noticed: whatever came before it has been looked for by then."""
    before = daemon.log.count(TOLD[child])
    with traced(daemon.pids[child]):
        daemon.wait_for(TOLD[child], times=before + 1)


def test_each_is_noticed_however_short_it_stays(template: Path, tmp_path: Path) -> None:
    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon, daemon.client() as client:
        assert "tracer-events" not in daemon.log, "this wants the host's network, pid and user namespaces"
        for child in CHILDREN:
            for times in (1, 1, 1, 5):  # five between two looks
                tracers = attack(daemon.pids[child], times)
                daemon.wait_for(str(tracers[-1]))
                assert noticed(daemon, child, tracers) == tracers
        entries = [json.loads(entry.entry) for entry in client.audit.tail(limit=100)]
        assert [each.get("event") for each in entries].count("tamper.traced") == 8


def test_looking_alone_misses_them(template: Path, tmp_path: Path) -> None:
    """The control."""
    with running_daemon(copy_template(template, tmp_path / "dev"), prefix=WITHOUT_EVENTS) as daemon:
        assert daemon.log.count("tracer-events") == 2  # said once by each process
        for child in CHILDREN:
            tracers = attack(daemon.pids[child], 10)
            linger(daemon, child)
            assert len(noticed(daemon, child, tracers)) < len(tracers)


def test_a_tracer_of_any_thread(template: Path, tmp_path: Path) -> None:
    """TracerPid, as it is looked at, is the main thread's."""
    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon:
        pid = daemon.pids["openkd"]
        other = max(int(thread) for thread in os.listdir(f"/proc/{pid}/task"))
        assert other != pid
        tracers = attack(other)
        daemon.wait_for(str(tracers[0]))
        assert noticed(daemon, "openkd", tracers) == tracers


def test_others_who_trace_each_other_do_not_even_wake_it() -> None:
    events = PtraceEvents()
    events.subscribe()
    with subprocess.Popen(["sleep", "60"]) as other:
        attack(other.pid, 50)
        other.kill()
    assert select.select([events.channel], [], [], 0)[0] == []
    tracers = attack(os.getpid(), 2)
    assert select.select([events.channel], [], [], 0)[0] == [events.channel]
    assert events.read() == Heard(tuple(tracers))
    events.close()


def test_of_a_flood_some_are_named_and_that_there_were_more(template: Path, tmp_path: Path) -> None:
    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon, daemon.client() as client:
        for child, text in MORE.items():
            attack(daemon.pids[child], 200)
            daemon.wait_for(text)
            assert 0 < daemon.log.count(TOLD[child]) < 200
        client.vault.create("v")


def test_it_is_sealed_for_its_sake(template: Path, tmp_path: Path) -> None:
    with running_daemon(copy_template(template, tmp_path / "dev"), options=("--on-tracer", "seal")) as daemon:
        for child, event in SEALED.items():
            attack(daemon.pids[child])
            daemon.wait_for(event)
            with daemon.client() as client:
                with pytest.raises(Error) as caught:
                    client.vault.create(child)
                assert caught.value.code == "daemon.sealed"
                client.system.unseal()
                client.vault.create(child)
