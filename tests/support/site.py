"""A daemon as in production: started from a configuration file, its workers processes of their own that are started
again at once when they die, as their units would be. The test may kill any of it.

    site = Site(folder, {"main": Source(uri, pin_file, environment, workers=2)})
    async with site.running(): ...
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from openk_daemon.policy.shipped import shipped_policies
from tests.support.load import Answer, Refused, Wire

READY_WITHIN = 90.0
_LOOK = 0.01


@dataclass(frozen=True)
class Source:
    """Where an HSM's workers find it, and how many there are."""

    uri: str
    pin_file: Path
    environment: Mapping[str, str]
    workers: int = 1
    options: Sequence[str] = ()


@dataclass
class Site:
    """`groups`: name to members. The first of `hsms` is home, or the first group if there is one. `settings`: lines for
    each [hsm.NAME]."""

    folder: Path
    hsms: Mapping[str, Source]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    settings: Sequence[str] = ()
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])
    daemon: subprocess.Popen[bytes] | None = None
    held: set[str] = field(default_factory=set[str])
    """Workers that are not started again for now."""
    starts: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "state").mkdir(mode=0o700, exist_ok=True)

    @property
    def socket(self) -> Path:
        return self.folder / "openkd.sock"

    @property
    def log(self) -> str:
        return (self.folder / "openkd.log").read_text(errors="replace")

    # --- starting ---

    def _configuration(self) -> str:
        lines = [
            f'state = "{self.folder}/state"',
            f'policies = "{shipped_policies()}"',
            f"administrators = [{os.getuid()}]",
            f'user = "{pwd.getpwuid(os.getuid()).pw_name}"',
            f'[socket]\npath = "{self.socket}"\nmode = 0o600',
        ]
        for name, members in self.groups.items():
            lines.append(f"[hsm.{name}]\ngroup = {list(members)!r}")
        for name, source in self.hsms.items():
            sockets = [str(self._worker_socket(name, number)) for number in range(source.workers)]
            lines.append(f"[hsm.{name}]\nsockets = {sockets!r}\nhandoff_bytes = 262144")
            lines += self.settings
        return "\n".join(lines) + "\n"

    def _worker_socket(self, name: str, number: int) -> Path:
        return self.folder / f"{name}-{number}.sock"

    def _start_worker(self, name: str) -> None:
        hsm, number = name.rsplit("-", 1)
        source = self.hsms[hsm]
        (self.folder / f"{hsm}.latch").mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-m", "openk_hsm.cli", "serve", "--uri", source.uri, "--pin-file", str(source.pin_file)),
            *("--socket", str(self._worker_socket(hsm, int(number))), "--state", str(self.folder / f"{hsm}.latch")),
            *source.options,
        ]
        with (self.folder / "workers.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(command, env=dict(source.environment), stderr=log)
        self.starts[name] += 1

    def _start_daemon(self) -> None:
        configuration = self.folder / "openkd.toml"
        configuration.write_text(self._configuration())
        with (self.folder / "openkd.log").open("ab") as log:
            command = [sys.executable, "-m", "openk_daemon", "--config", str(configuration)]
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log)

    async def _keep_workers(self) -> None:
        names = [f"{hsm}-{number}" for hsm, source in self.hsms.items() for number in range(source.workers)]
        while True:
            for name in names:
                process = self.workers.get(name)
                if name not in self.held and (process is None or process.poll() is not None):
                    self._start_worker(name)
            await trio.sleep(_LOOK)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Wire]:
        """Daemon and workers, ready; a connection to it. At the end the daemon must stop by SIGTERM with status 0."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_workers)
                self._start_daemon()
                wire = Wire(self.socket)
                await self._ready(wire)
                yield wire
                await wire.close()
                await trio.to_thread.run_sync(self._stop_daemon)
                nursery.cancel_scope.cancel()
        finally:
            for process in [*self.workers.values(), *([self.daemon] if self.daemon else [])]:
                process.kill()
                process.wait()

    async def _ready(self, wire: Wire) -> None:
        try:
            await wire.connect(READY_WITHIN)
            (answer,) = await wire.ask([("system.ping", {})])
        except trio.TooSlowError:
            raise AssertionError(f"the daemon does not start:\n{self.log}") from None
        assert isinstance(answer, dict), f"{answer}\n{self.log}"

    def _stop_daemon(self) -> None:
        assert self.daemon is not None
        self.daemon.terminate()
        status = self.daemon.wait(30)
        assert status == 0, f"the daemon stopped with {status}:\n{self.log[-4000:]}"

    # --- trouble ---

    def kill(self, name: str) -> None:
        """SIGKILL to a worker, such as "main-0"."""
        process = self.workers[name]
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)

    def hold(self, hsm: str) -> None:
        """Kill an HSM's workers and keep them dead until `release`."""
        for number in range(self.hsms[hsm].workers):
            self.held.add(f"{hsm}-{number}")
            self.kill(f"{hsm}-{number}")

    def release(self, hsm: str) -> None:
        for number in range(self.hsms[hsm].workers):
            self.held.discard(f"{hsm}-{number}")


async def answered(wire: Wire, method: str, **params: object) -> Answer:
    """AssertionError when it is refused."""
    (answer,) = await wire.ask([(method, params)])
    assert isinstance(answer, dict), f"{method}: {answer}"
    return answer


async def refused(wire: Wire, method: str, **params: object) -> tuple[Refused, float]:
    """The refusal, and the seconds it took. AssertionError when it is answered."""
    begun = time.monotonic()
    (answer,) = await wire.ask([(method, params)])
    assert isinstance(answer, Refused), f"{method}: {answer}"
    return answer, time.monotonic() - begun


async def until_state(wire: Wire, hsm: str, state: str, seconds: float = 30.0) -> Mapping[str, Any]:  # Any: as the wire
    """Wait for an HSM's state as `hsm.status` tells it."""
    with trio.fail_after(seconds):
        while True:
            status = await answered(wire, "hsm.status", hsm=hsm)
            (row,) = status["hsms"]
            found: Mapping[str, Any] = row  # Any: as the wire gives it
            if found["state"] == state:
                return found
            await trio.sleep(0.02)
