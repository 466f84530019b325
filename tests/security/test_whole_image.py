"""The whole of the real daemon and its worker, locked memory included (on a kernel without memfd_secret, which nobody can
read): every method, every way for a client to misbehave, a worker that dies, reload, rotation, the seal. In flight nothing
is outside locked memory; idle there is nothing anywhere: files, descriptors and the queues of sockets included.

The leaky daemon and worker beside it are searched with the same code in the same run; what is not found there would prove
nothing here."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import trio

import openk
import openk.trio
from openk.wire.methods import METHODS
from tests.support.backlog import backlog, find, queued_bytes, waiting
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template, with_backups
from tests.support.leaky_openkd import FORMS, IN_WORKER, MARK
from tests.support.scan import Hit, scan, unlocked
from tests.support.secret_work import (
    WORK,
    Canaries,
    Line,
    ciphers,
    derivation,
    furnish,
    in_files,
    secrets,
    wrapping,
)
from tests.support.tokens import URI

__all__ = ["template"]

SUPPORT: Final = Path(__file__).parents[1] / "support"
OPEN_MEMORY: Final = (str(SUPPORT / "without_secretmem.py"), sys.executable, "-m", "openk_daemon")
LEAKY: Final = (str(SUPPORT / "leaky_openkd.py"),)
IDLE: Final = 1.3
"""Seconds until whatever is tidied once a second has been."""


# --- the control ---


@pytest.fixture(scope="module")
def control(template: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every leak of the leaky daemon and of its worker is found. Whoever searches a good one asks for this first."""
    folder = tmp_path_factory.mktemp("leaky")
    with running_daemon(copy_template(template, folder / "dev"), program=LEAKY) as daemon:
        line = Line(daemon.socket)
        line.ask("vault.create", vault="v")
        line.ask("key.create", key="v/seal", algorithm="aes-256-gcm")
        in_daemon = {form: os.urandom(32) for form in FORMS}
        in_worker = {form: os.urandom(32) for form in IN_WORKER}
        for form, canary in in_daemon.items():
            line.ask("secret.put", secret=f"v/leak-{form}", value=canary)
        for form, canary in in_worker.items():
            line.ask("key.encrypt", key="v/seal", input=MARK + form.ljust(8).encode() + canary)
        line.close()
        time.sleep(IDLE)
        pids = daemon.pids
        assert forms_found(pids["openkd"], in_daemon) == set(FORMS) - {"log", "store", "temp"}
        assert forms_found(pids["hsm-0"], in_worker) == set(IN_WORKER)
        needles = list(in_daemon.values())
        assert {list(in_daemon)[hit.needle] for hit in in_files(daemon, needles)} == {"log", "store", "temp"}
        pin = (daemon.folder / "pin").read_bytes().strip()
        assert leaks(pids["hsm-0"], [pin]), "the PIN that the worker keeps was not found"


def forms_found(pid: int, planted: Mapping[str, bytes]) -> set[str]:
    """Names of those that are found in `pid`, and in the form that they are named after."""
    names = list(planted)
    found = {names[hit.needle] for hit in leaks(pid, list(planted.values())) if hit.form == names[hit.needle]}
    return found | {names[hit.needle] for hit in backlog(pid, list(planted.values()))}


def leaks(pid: int, needles: list[bytes]) -> list[Hit]:
    """Outside of locked memory, registers excepted."""
    return [hit for hit in unlocked(scan(pid, needles)) if not hit.in_registers]


def test_the_leaky_daemon_and_its_worker_are_caught(control: None) -> None:
    """That the fixture got so far."""


# --- the good one ---


@pytest.fixture(scope="module")
def daemon(control: None, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = with_backups(copy_template(template, tmp_path_factory.mktemp("whole") / "dev"))
    with running_daemon(folder, program=OPEN_MEMORY) as running:
        line = Line(running.socket)
        furnish(line)
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

    def frames(self, *requests: tuple[str, dict[str, object]]) -> bytes:
        return b"".join(self.line.frame(method, params) for method, params in requests)

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
    """Readers that do not take their answers. What the kernel has taken lies in their own sockets, and is what they asked
    for; everything else lies in locked memory until the client hangs up."""
    large = by.canaries.fresh(64) * 4000
    by.line.ask("secret.put", secret="v/large", value=large)
    before = in_use(by.line)
    waiting_for = [by.raw() for _ in range(2)]
    for sock in waiting_for:
        sock.sendall(by.line.frame("secret.get", {"secret": "v/large"}) * 3)
    until(lambda: in_use(by.line) - before > 3 * len(large), "no answers wait")
    found = scan(by.daemon.pids["openkd"], [by.canaries.ours])
    assert [hit for hit in unlocked(found) if not hit.in_registers] == []
    assert any(hit.locked for hit in found), "nothing waits: the search did not see locked memory"
    assert backlog(by.daemon.pids["openkd"], [by.canaries.ours]) == []
    for sock in waiting_for:
        queued = waiting(sock)
        assert 0 < len(queued) < len(large), "the kernel takes what its buffer holds, not all that was asked for"
        assert list(find("its own socket", queued, [by.canaries.ours]))
        sock.close()
    until(lambda: in_use(by.line) <= before, "answers are still there after their clients")


def in_use(line: Line) -> int:
    """Bytes of locked memory on lease."""
    return int(line.ask("system.info")["info"]["locked_memory"]["in_use"])


def until(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def unread(by: Bystander) -> None:
    """Requests that the daemon does not take, because their sender does not take his answers: they are in the kernel, for
    as long as he keeps his connection."""
    by.line.ask("secret.put", secret="v/large", value=by.canaries.fresh(64) * 4000)
    pid = by.daemon.pids["openkd"]
    with by.raw() as sock:
        sock.sendall(by.line.frame("secret.get", {"secret": "v/large"}) * 4)
        until(lambda: bool(waiting(sock)), "no answer")
        sock.setblocking(False)
        sock.send(by.frame() * 2000)  # as much of it as there is room for
        assert backlog(pid, [by.canaries.ours]), "the queue of the daemon's socket was not seen"
        assert leaks(pid, [by.canaries.ours]) == []
    until(lambda: backlog(pid, [by.canaries.ours]) == [], "they stayed when their sender had gone")


def sealed(by: Bystander) -> None:
    by.line.ask("system.seal", reason="an exercise")
    assert by.line.refusal("secret.put", secret="v/one", value=by.canaries.fresh()) == "daemon.sealed"
    assert by.line.refusal("key.decrypt", key="v/seal", ciphertext=by.sealed) == "daemon.sealed"
    by.line.ask("system.unseal")
    ciphers(by.line, by.canaries)


def forbidden(by: Bystander) -> None:
    """By a policy, loaded in the middle of all this."""
    by.line.ask("vault.create", vault="closed")
    by.line.ask("key.create", key="closed/seal", algorithm="aes-256-gcm")
    policy = by.daemon.folder / "policies" / "20-closed.cedar"
    policy.write_text('@id("closed") forbid (principal, action, resource in Vault::"closed");')
    by.line.ask("policy.reload")
    assert by.line.refusal("secret.put", secret="closed/one", value=by.canaries.fresh()) == "policy.denied"
    assert by.line.refusal("key.encrypt", key="closed/seal", input=by.canaries.fresh()) == "policy.denied"
    policy.unlink()
    by.line.ask("policy.reload")


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


def rotation_by_a_rule(by: Bystander) -> None:
    """openkd makes the next version of the keys by itself, the cached one's in its own memory."""
    rules = by.daemon.folder / "conf.d" / "rotation.toml"
    rules.parent.mkdir(exist_ok=True)
    keys = ("v/seal", "v/cached", "v/kek")
    rules.write_text(f'[rotation.now]\nafter_uses = 1\naction = "rotate"\nkeys = {list(keys)}\n', "utf-8")
    before = {key: by.line.ask("key.describe", key=key)["version"] for key in keys}
    by.daemon.signal(signal.SIGHUP)
    until(lambda: all(by.line.ask("key.describe", key=key)["version"] > before[key] for key in keys), "no rotation")
    rules.unlink()
    by.daemon.signal(signal.SIGHUP)
    ciphers(by.line, by.canaries)
    wrapping(by.line, by.canaries)


MISCHIEF: Final = (
    oversized, truncated, stalled, unread, cancelled, forbidden, worker_dies, reload_and_rotation, rotation_by_a_rule,
    sealed,
)  # fmt: skip
NEVER: Final = frozenset({("hsm.attest", "ok")})
"""What SoftHSM2 cannot do; on a device that can, certificates are all that is seen."""


def test_idle_there_is_nothing_anywhere(daemon: RunningDaemon) -> None:
    """After all of it, each method done and refused at least once: a new one fails here until it is part of the work."""
    canaries = Canaries()
    line = Line(daemon.socket)
    for work in WORK:
        work(line, canaries)
    bystander = Bystander(daemon, canaries)
    for act in MISCHIEF:
        act(bystander)
    bystander.line.close()
    line.close()
    outcomes = line.outcomes | bystander.line.outcomes
    assert {(name, "ok") for name in METHODS} - outcomes == NEVER, "a method that is not tried"
    assert set(METHODS) - {name for name, code in outcomes if code != "ok"} == set(), "a method that is never refused"
    time.sleep(IDLE)
    found = {name: scan(pid, canaries.needles) + backlog(pid, canaries.needles) for name, pid in daemon.pids.items()}
    assert found == {"openkd": [], "hsm-0": []}
    assert in_files(daemon, canaries.needles) == []
    assert list((daemon.folder / "backups").glob("*/store.db")), "no backup was searched"


# --- in flight ---


def test_in_flight_nothing_is_outside_locked_memory(daemon: RunningDaemon) -> None:
    """Frozen again and again in the middle of work. Registers hold what is being computed with."""
    canaries = Canaries()
    stop = threading.Event()
    mistakes: list[BaseException] = []

    def work() -> None:
        line = Line(daemon.socket)
        try:
            while not stop.is_set():
                try:
                    secrets(line, canaries)
                    ciphers(line, Canaries.like(canaries))
                except AssertionError as mistake:
                    if "hsm.timeout" not in str(mistake):  # frozen for longer than a request may take
                        raise
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


@contextmanager
def halted(pid: int) -> Generator[None]:
    """It does not run meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it goes on")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def under_way(daemon: RunningDaemon) -> tuple[Line, Canaries, dict[str, dict[str, object]]]:
    """Requests by method: all whose secret goes to the HSM and back, or comes from it and is known beforehand."""
    canaries = Canaries()
    line = Line(daemon.socket)
    given, aad = canaries.fresh(), {"aad": b"with"}
    requests: dict[str, dict[str, object]] = {
        "key.encrypt": {"key": "v/seal", "input": given, **aad},
        "key.mac": {"key": "v/mac", "input": given},
        "key.wrap": {"key": "v/kek", "input": given, **aad},
        "key.derive": {"key": "v/derive", "length": 32, "context": b"c"},
        "key.agree": {"key": "v/ecdh", "public": line.ask("key.public", key="v/ecdh")["public"]},
    }
    sealed = line.ask("key.encrypt", **requests["key.encrypt"])["ciphertext"]
    requests["key.decrypt"] = {"key": "v/seal", "ciphertext": sealed, **aad}
    requests["key.reencrypt"] = requests["key.decrypt"]
    requests["key.unwrap"] = {"key": "v/kek", "wrapped": line.ask("key.wrap", **requests["key.wrap"])["wrapped"], **aad}
    made = line.ask("key.mac", **requests["key.mac"])["mac"]
    requests["key.verify_mac"] = {**requests["key.mac"], "mac": made}
    canaries.keep(line.ask("key.derive", **requests["key.derive"])["derived"])
    canaries.keep(line.ask("key.agree", **requests["key.agree"])["shared"])
    line.ask("secret.put", secret="v/one", value=given)
    requests["secret.get"] = {"secret": "v/one"}
    requests["secret.put"] = {"secret": "v/two", "value": given}
    return line, canaries, requests


AT_THE_HSM: Final = (
    "key.encrypt", "key.mac", "key.wrap", "key.derive", "key.agree", "key.decrypt", "key.reencrypt", "key.unwrap",
    "key.verify_mac", "secret.get", "secret.put",
)  # fmt: skip


def test_between_daemon_and_worker(
    daemon: RunningDaemon, under_way: tuple[Line, Canaries, dict[str, dict[str, object]]]
) -> None:
    """Halted on purpose, not by chance: the requests of every method that takes a secret to the HSM are with the daemon,
    the worker has not begun; then it has done its work, and the daemon has not heard of it. What they say to each other
    holds no secret: that is in the hand-off region."""
    line, canaries, requests = under_way
    assert set(AT_THE_HSM) == set(requests)
    openkd, worker = daemon.pids["openkd"], daemon.pids["hsm-0"]
    line.sock.sendall(b"".join(line.frame(method, requests[method]) for method in AT_THE_HSM))
    for _ in AT_THE_HSM:  # keys are loaded: from now on all go at once
        assert line.receive()[0] is None
    with halted(worker):
        before = queued_bytes(worker)
        line.sock.sendall(b"".join(line.frame(method, requests[method]) for method in AT_THE_HSM))
        until(lambda: queued_bytes(worker) > before and not queued_bytes(openkd), "the daemon does not pass them on")
        held = scan(openkd, canaries.needles)
        assert [hit for hit in unlocked(held) if not hit.in_registers] == []
        assert any(hit.locked for hit in held), "the daemon holds nothing: this proves nothing"
        assert backlog(openkd, canaries.needles) + backlog(worker, canaries.needles) == []
        os.kill(openkd, signal.SIGSTOP)
    try:
        until(lambda: queued_bytes(openkd) > 0 and not queued_bytes(worker), "the worker does not answer")
        held = scan(worker, canaries.needles)
        assert [hit for hit in unlocked(held) if not hit.in_registers] == []
        assert any(hit.locked for hit in held), "the worker holds nothing: this proves nothing"
        assert backlog(openkd, canaries.needles) + backlog(worker, canaries.needles) == []
    finally:
        os.kill(openkd, signal.SIGCONT)
    for _ in AT_THE_HSM:
        error, _ = line.receive()
        assert error is None or error[1].startswith("hsm.timeout"), error  # it was halted for long
    line.close()


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
    while b"hsm.awaited" not in said.read_bytes() and b"" not in said.read_bytes().splitlines():
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
