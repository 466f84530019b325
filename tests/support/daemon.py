"""The real daemon for tests: `openkd --dev`, with its monitor, its worker and SoftHSM2, in a folder of the test's own.

A token takes most of a first start, so one is made a session (`template`) and each folder is a copy of it:

    from tests.support.daemon import copy_template, running_daemon, template  # a conftest.py: `template` is a fixture

    with running_daemon(copy_template(template, tmp_path / "dev")) as daemon, daemon.client() as client:
        ...
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import openk
from tests.support.tokens import URI, Token, make_token

READY_WITHIN = 30.0
"""Seconds; the machine may be busy. Usually under one."""
STOPPED_WITHIN = 20.0
OPENKD = ("-m", "openk_daemon")
"""What the interpreter runs."""
NOISE = ("Traceback", "Warning:", "never awaited", "was never retrieved")
"""None of it may ever be in a log."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dev folder with a token and nothing else: state, policies and sockets come with the first start."""
    return make_template(tmp_path_factory.mktemp("template") / "dev")


def make_template(folder: Path) -> Path:
    """What the `template` fixture does, for those who need another token."""
    token = make_token(folder)
    (folder / "token-uri").write_text(token.uri + "\n")
    return folder


def copy_template(template: Path, folder: Path) -> Path:
    """A dev folder of one's own, with the template's keys and PIN."""
    return Token(template, URI).copy(folder).folder


def with_backups(dev: Path, folder: Path | None = None, more: str = "") -> Path:
    """The dev folder `dev`, whose daemon makes backups: in `folder`, or inside of `dev`. `more`: lines of [backup]."""
    backups = dev / "backups" if folder is None else folder
    backups.mkdir(mode=0o700, exist_ok=True)
    (dev / "conf.d").mkdir(exist_ok=True)
    (dev / "conf.d" / "backup.toml").write_text(f'[backup]\nfolder = "{backups}"\n{more}')
    return dev


@dataclass
class RunningDaemon:
    """`process` is the monitor. A test that ends it by other means than `stop` sets `expected_status` (None: any)."""

    folder: Path
    process: subprocess.Popen[bytes]
    log_file: Path
    expected_status: int | None = 0
    forgiven: tuple[str, ...] = field(default=())
    """Parts of lines with NOISE that this test brings about."""

    @property
    def socket(self) -> Path:
        return self.folder / "openkd.sock"

    @property
    def log(self) -> str:
        """What monitor, workers and daemon said until now."""
        return self.log_file.read_text(errors="replace")

    @property
    def pids(self) -> Mapping[str, int]:
        """The monitor's children: "openkd", "hsm-0", ..."""
        loaded = json.loads((self.folder / "pids.json").read_text())
        return {str(name): int(pid) for name, pid in loaded.items()}

    def client(self, timeout: float = 20.0) -> openk.Client:
        return openk.Client(self.socket, timeout=timeout)

    def signal(self, number: signal.Signals, child: str = "openkd") -> None:
        os.kill(self.pids[child], number)

    def wait_for(self, text: str, times: int = 1, seconds: float = READY_WITHIN) -> None:
        """Until `text` is `times` in the log. AssertionError with the log if it does not come."""
        until = time.monotonic() + seconds
        while self.log.count(text) < times:
            ended = self.process.poll()
            assert ended is None or self.log.count(text) >= times, f"ended with {ended}, without {text!r}:\n{self.log}"
            assert time.monotonic() < until, f"no {text!r} within {seconds} s:\n{self.log}"
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM to the monitor, and the end it must come to. Again: nothing."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not stop within {STOPPED_WITHIN} s:\n{self.log}") from None
        assert self.expected_status is None or status == self.expected_status, f"exit status {status}:\n{self.log}"
        self.check_log()

    def check_log(self) -> None:
        """Nothing in the log speaks of a mistake in openk."""
        for line in self.log.splitlines():
            noisy = any(word in line for word in NOISE) and not any(known in line for known in self.forgiven)
            assert not noisy, f"{line}\n\nin:\n{self.log}"

    def kill(self) -> None:
        """The monitor's children get SIGTERM when it dies; kill those that do not heed it."""
        try:
            children = list(self.pids.values())
        except OSError:
            children = []
        for pid in [self.process.pid, *children]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def start_daemon(
    folder: Path,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    program: Sequence[str] = OPENKD,
    prefix: Sequence[str] = (),
) -> RunningDaemon:
    """`openkd --dev folder`, not waited for. The log goes to `folder`.log, behind what was there. `prefix`: what the
    command begins with."""
    log_file = folder.with_name(folder.name + ".log")
    command = [*prefix, sys.executable, *program, "--dev", str(folder), "--workers", str(workers), *options]
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
        )
    return RunningDaemon(folder, process, log_file)


@contextmanager
def running_daemon(
    folder: Path,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    program: Sequence[str] = OPENKD,
    prefix: Sequence[str] = (),
) -> Generator[RunningDaemon]:
    """`openkd --dev folder`, ready; at the end it must stop by SIGTERM with status 0 and a clean log."""
    folder.with_name(folder.name + ".log").unlink(missing_ok=True)
    daemon = start_daemon(folder, workers, environment, options, program, prefix)
    try:
        daemon.wait_for("openkd ready:")
        yield daemon
        daemon.stop()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
