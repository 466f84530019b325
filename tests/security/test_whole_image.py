"""The whole of the real daemon and its worker, locked memory included (on a kernel without memfd_secret, which nobody can
read): every method that touches a key or a secret, every way for a client to misbehave, a worker that dies, reload,
rotation. In flight nothing is outside locked memory; idle there is nothing anywhere, files included.

The leaky daemon beside it is searched with the same code in the same run; what is not found there would prove nothing
here."""

from __future__ import annotations

import inspect
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trio

import openk
import openk.trio
from openk.wire.methods import METHODS
from tests.security.test_daemon_memory import (  # fmt: skip
    KEYS,
    Canaries,
    Line,
    agreement,
    ciphers,
    derivation,
    in_files,
    refused_secrets,
    rsa,
    secrets,
    vanished,
    wrapping,
)
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.leaky_openkd import FORMS
from tests.support.scan import Hit, scan, unlocked
from tests.support.tokens import URI

__all__ = ["template"]

SUPPORT: Final = Path(__file__).parents[1] / "support"
OPEN_MEMORY: Final = (str(SUPPORT / "openkd_without_secretmem.py"),)
LEAKY: Final = (str(SUPPORT / "leaky_openkd.py"),)
IDLE: Final = 1.3
"""Seconds until whatever is tidied once a second has been."""
TOUCHING: Final = {name for name, method in METHODS.items()
                   if any(field.secret for field in (*method.fields, *method.item, *method.result))}  # fmt: skip
"""The methods that are given or give a secret."""


# --- the control ---


@pytest.fixture(scope="module")
def control(template: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every leak of the leaky daemon is found. Whoever searches a good one asks for this first."""
    folder = tmp_path_factory.mktemp("leaky")
    with running_daemon(copy_template(template, folder / "dev"), program=LEAKY) as daemon:
        line = Line(daemon.socket)
        line.ask("vault.create", vault="v")
        planted = {form: os.urandom(32) for form in FORMS}
        for form, canary in planted.items():
            line.ask("secret.put", secret=f"v/leak-{form}", value=canary)
        line.close()
        time.sleep(IDLE)
        pin = (daemon.folder / "pin").read_bytes().strip()
        hits = leaks(daemon.pids["openkd"], list(planted.values()))
        forms = list(planted)
        found = {(forms[hit.needle], hit.form) for hit in hits}
        for form in ("raw", "piece", "reversed", "hex", "base64", "schedule"):
            assert (form, form) in found, f"a leak as {form} was not found: {found}"
        files = {forms[hit.needle] for hit in in_files(daemon, list(planted.values()))}
        assert files == {"log", "store", "temp"}
        assert leaks(daemon.pids["hsm-0"], [pin]), "the worker's leak was not found"


def leaks(pid: int, needles: list[bytes]) -> list[Hit]:
    return [hit for hit in unlocked(scan(pid, needles)) if not hit.in_registers]


# --- the good one ---


@pytest.fixture(scope="module")
def daemon(control: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = copy_template(template, tmp_path_factory.mktemp("whole") / "dev")
    with running_daemon(folder, program=OPEN_MEMORY) as running:
        line = Line(running.socket)
        line.ask("vault.create", vault="v")
        for name, params in KEYS.items():
            line.ask("key.create", key=f"v/{name}", **params)
        line.close()
        yield running


class Bystander:
    """What a client that behaves badly needs: frames, and a socket of its own for each."""

    def __init__(self, daemon: RunningDaemon, canaries: Canaries) -> None:
        self.daemon = daemon
        self.canaries = canaries
        self.line = Line(daemon.socket)
        self.sealed = self.line.ask("key.encrypt", key="v/seal", input=canaries.fresh())["ciphertext"]

    def frame(self, size: int = 400) -> bytes:
        return self.line.frame("secret.put", {"secret": "v/gone", "value": self.canaries.fresh(size)})

    def raw(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(20)
        made.connect(str(self.daemon.socket))
        return made


def hear_out(sock: socket.socket) -> None:
    """What the daemon says until it hangs up."""
    with suppress(ConnectionError):
        while sock.recv(65536):
            continue


def oversized(by: Bystander) -> None:
    """Larger than a message may be: the header says so, and the first bytes are secret."""
    with by.raw() as sock:
        head = b"\x94\x00\x01\xaasecret.put\x91\x82\xa6secret\xa5v/one\xa5value\xc6" + struct.pack(">I", 8 << 20)
        with suppress(ConnectionError):
            sock.sendall(head + by.canaries.fresh(60_000))
        hear_out(sock)
    with by.raw() as sock:  # as large as may be, and cut off
        sock.sendall(by.frame(900_000)[:-5])


def truncated(by: Bystander) -> None:
    frame = by.frame()
    for cut in (1, 20, 40, len(frame) // 2, len(frame) - 1):
        with by.raw() as sock:
            sock.sendall(frame[:cut])
            sock.shutdown(socket.SHUT_WR)
            hear_out(sock)
    with by.raw() as sock:
        sock.sendall(b"\xc1" + by.canaries.fresh(500))  # no MessagePack at all
        hear_out(sock)


def stalled(by: Bystander) -> None:
    """Readers that do not take their answers: they lie in locked memory until the client hangs up."""
    by.line.ask("secret.put", secret="v/large", value=by.canaries.fresh(64) * 4000)
    waiting = [by.raw() for _ in range(3)]
    for sock in waiting:
        sock.sendall(by.line.frame("secret.get", {"secret": "v/large"}) * 8)
    time.sleep(0.3)
    found = scan(by.daemon.pids["openkd"], [by.canaries.ours])
    assert [hit for hit in unlocked(found) if not hit.in_registers] == []
    assert any(hit.locked for hit in found), "nothing waits: the search did not see locked memory"
    for sock in waiting:
        sock.close()


def cancelled(by: Bystander) -> None:
    """A trio client gives up calls that are under way."""

    async def run() -> None:
        async with openk.trio.Client(by.daemon.socket) as client:
            for patience in (0.0002, 0.001, 0.003):
                with trio.move_on_after(patience):
                    while True:
                        await client.key.decrypt("v/seal", by.sealed)
            await client.key.decrypt("v/seal", by.sealed)

    trio.run(run)


def worker_dies(by: Bystander) -> None:
    """Under load: what was in flight is done again by the next worker."""
    before = by.daemon.pids["hsm-0"]
    raw = by.raw()
    raw.sendall(by.line.frame("key.decrypt", {"key": "v/seal", "ciphertext": by.sealed}) * 60)
    os.kill(before, signal.SIGKILL)
    answered = 0
    while answered < 60 * 40:
        answered += len(raw.recv(1 << 16))
    raw.close()
    assert by.daemon.pids["hsm-0"] != before


def reload_and_rotation(by: Bystander) -> None:
    by.daemon.signal(signal.SIGHUP)
    for key in ("v/seal", "v/cached", "v/kek", "v/derive"):
        by.line.ask("key.rotate", key=key)
    ciphers(by.line, by.canaries)
    wrapping(by.line, by.canaries)
    derivation(by.line, by.canaries)


WORK: Final = (secrets, refused_secrets, ciphers, wrapping, derivation, agreement, rsa, vanished)
MISCHIEF: Final = (oversized, truncated, stalled, cancelled, worker_dies, reload_and_rotation)


def test_idle_there_is_nothing_anywhere(daemon: RunningDaemon) -> None:
    canaries = Canaries()
    line = Line(daemon.socket)
    for work in WORK:
        work(line, canaries)
    bystander = Bystander(daemon, canaries)
    for act in MISCHIEF:
        act(bystander)
    bystander.line.close()
    line.close()
    time.sleep(IDLE)
    found = {name: scan(pid, canaries.needles) for name, pid in daemon.pids.items()}
    assert found == {"openkd": [], "hsm-0": []}
    assert in_files(daemon, canaries.needles) == []


def test_in_flight_nothing_is_outside_locked_memory(daemon: RunningDaemon) -> None:
    """Frozen again and again in the middle of work. Registers hold what is being computed with."""
    canaries = Canaries()
    stop = threading.Event()
    mistakes: list[BaseException] = []

    def work() -> None:
        line = Line(daemon.socket)
        try:
            while not stop.is_set():
                secrets(line, canaries)
                ciphers(line, Canaries.like(canaries))
        except (AssertionError, OSError) as mistake:
            mistakes.append(mistake)
        finally:
            line.close()

    load = threading.Thread(target=work)
    load.start()
    seen_locked = False
    try:
        for _ in range(6):
            time.sleep(0.05)
            for pid in daemon.pids.values():
                hits = scan(pid, [canaries.ours])
                assert [hit for hit in unlocked(hits) if not hit.in_registers] == []
                seen_locked = seen_locked or any(hit.locked for hit in hits)
    finally:
        stop.set()
        load.join()
    assert mistakes == []
    assert seen_locked, "never frozen with a secret in its hands: this proves nothing"


def test_every_method_that_touches_a_secret_is_tried() -> None:
    tried = "".join(inspect.getsource(act) for act in (*WORK, *MISCHIEF))
    assert {name for name in TOUCHING if f'"{name}"' not in tried} == set()


def test_what_leaves_at_the_stop(control: None, template: Path, tmp_path: Path) -> None:
    """While it drains, and in what it leaves behind."""
    folder = copy_template(template, tmp_path / "dev")
    canaries = Canaries()
    with running_daemon(folder, program=OPEN_MEMORY) as daemon:
        line = Line(daemon.socket)
        line.ask("vault.create", vault="v")
        line.ask("key.create", key="v/slow", algorithm="rsa-4096", purpose="decrypt")
        line.ask("secret.put", secret="v/one", value=canaries.fresh())
        pids = dict(daemon.pids)
        held = Line(daemon.socket)
        held.sock.sendall(held.frame("key.create", {"key": "v/more", "algorithm": "rsa-4096", "purpose": "decrypt"}))
        held.sock.sendall(held.frame("secret.put", {"secret": "v/two", "value": canaries.fresh(200)})[:-3])
        time.sleep(0.05)
        os.kill(daemon.process.pid, signal.SIGTERM)
        daemon.wait_for("stopping")
        with suppress(ProcessLookupError, FileNotFoundError):  # where it was quick
            assert leaks(pids["openkd"], [canaries.ours]) == []
        held.close()
        line.close()
        daemon.process.wait(30)
        assert in_files(daemon, canaries.needles) == []


PLAIN: Final = "import time; print('openkd ready: hsm.awaited', flush=True); time.sleep(60)"


@pytest.mark.parametrize("process", ["plain", "openkd", "worker"])
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_no_core_even_when_root_allows_one(
    template: Path, tmp_path: Path, process: str, number: signal.Signals
) -> None:
    """Root lifts the limit on cores from outside, and kills it the way that dumps. `plain` is the control."""
    folder = copy_template(template, tmp_path / "dev")
    said = tmp_path / "said"
    arguments = {
        "plain": ["-c", PLAIN],
        "openkd": ["-m", "openk_daemon", "--dev", str(folder), "--supervised"],
        "worker": ["-m", "openk_hsm", "serve", "--uri", URI, "--pin-file", str(folder / "pin"), "--socket",
                   str(folder / "hsm.sock"), "--ready-fd", "1"],
    }[process]  # fmt: skip
    environment = {**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    with said.open("wb") as log:
        child = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    end = time.monotonic() + 20
    while b"hsm.awaited" not in said.read_bytes() and not (process == "worker" and said.read_bytes()):
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.02)
    with suppress(PermissionError):  # only root may lift the hard limit
        resource.prlimit(child.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.kill(child.pid, number)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = -number
    assert os.WTERMSIG(status) == number
    assert os.WCOREDUMP(status) == (process == "plain")
    assert bool(list(tmp_path.glob("core*"))) == (process == "plain" and not piped())


def piped() -> bool:
    """Whether cores go to a program instead of a file where the process was."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    return pattern.startswith(("|", "/"))
