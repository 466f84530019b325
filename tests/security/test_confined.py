"""Attacks from inside a confined process, each first shown to work on one that is not; and what the kernel says of the
real daemon and its worker."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from openk_hsm.pkcs11.softhsm import configuration
from tests.support.child import check_child
from tests.support.daemon import RunningDaemon, copy_template, running_daemon, template
from tests.support.tokens import MODULE, URI

__all__ = ["template"]

O_CLOEXEC = 0o2000000

LOAD = """
import ctypes, mmap, sys
from openk_memory.hardening import *
from openk_memory.landlock import runtime_paths
forbid_new_privileges()
if sys.argv[1] == "confined":
    print(deny_calls(code=False))
def attempt(name, act):
    try:
        act()
        print(name, "works")
    except (OSError, PermissionError) as error:
        print(name, "refused")
def imported():
    try:
        __import__("_bz2")
    except ImportError as error:
        raise PermissionError from error
attempt("vendor module", lambda: ctypes.CDLL(sys.argv[2]))
attempt("import", imported)
attempt("map code", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
attempt("map both", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC))
page = mmap.mmap(-1, 4096)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
def protect():
    if libc.mprotect(ctypes.c_void_p(at), 4096, 5) != 0:
        raise failure()
attempt("mprotect", protect)
attempt("plain memory", lambda: mmap.mmap(-1, 4096))
import threading
thread = threading.Thread(target=lambda: None)
attempt("thread", lambda: (thread.start(), thread.join()))
"""
CODE = ("vendor module", "import", "map code", "map both", "mprotect")


@pytest.mark.parametrize(("how", "outcome"), [("free", "works"), ("confined", "refused")])
def test_no_code_can_be_loaded(how: str, outcome: str) -> None:
    lines = check_child(LOAD, how, MODULE).splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.endswith(("works", "refused")))
    assert found == {**dict.fromkeys(CODE, outcome), "plain memory": "works", "thread": "works"}
    if how == "confined":
        assert lines[0].endswith(", and new code")


REACH = """
import os, socket, sys
from pathlib import Path
from openk_hsm.pin import PinSource
from openk_hsm.reach import Named, reach_of
from openk_hsm.uri import parse_uri
from openk_memory.hardening import *
how, uri, folder, other = sys.argv[1:5]
listening = socket.create_server(("127.0.0.1", 0))
port = listening.getsockname()[1]
forbid_new_privileges()
if how == "confined":
    print(confine(reach_of(parse_uri(uri), PinSource(file=Path(folder, "pin")), Path(folder, "latches"), Named())))
def attempt(name, act):
    try:
        act()
        print(name, "works")
    except OSError as error:
        print(name, "refused" if error.errno in (1, 13) else error)
attempt("its token", lambda: os.listdir(f"{folder}/tokens"))
attempt("a new object of its token", lambda: open(f"{folder}/tokens/new", "w").write("x"))
attempt("its PIN", lambda: open(f"{folder}/pin").read())
attempt("its state", lambda: open(f"{folder}/latches/mark", "w").write("x"))
attempt("its module", lambda: open(parse_uri(uri).module, "rb").read(4))
attempt("the daemon's store", lambda: open(f"{other}/store").read())
attempt("another token", lambda: os.listdir(other))
attempt("users", lambda: open("/etc/passwd").read())
attempt("other processes", lambda: open("/proc/1/status").read())
attempt("a new file elsewhere", lambda: open(f"{other}/new", "w"))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", port)))
"""
ITS_OWN = ("its token", "a new object of its token", "its PIN", "its state", "its module")
OTHERS = ("the daemon's store", "another token", "users", "other processes", "a new file elsewhere", "connect")


@pytest.mark.parametrize("how", ["free", "confined"])
def test_a_worker_reaches_its_token_and_its_module(
    how: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_template(template, tmp_path / "token")
    (folder / "latches").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "store").write_text("x")
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    assert configuration() == folder / "softhsm2.conf"
    lines = check_child(REACH, how, URI, str(folder), str(other)).splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.endswith(("works", "refused")))
    elsewhere = "works" if how == "free" else "refused"
    assert found == {**dict.fromkeys(ITS_OWN, "works"), **dict.fromkeys(OTHERS, elsewhere)}


def test_a_module_that_nobody_knows_is_confined_to_what_is_named(tmp_path: Path) -> None:
    out = check_child(
        """
        import sys
        from pathlib import Path
        from openk_hsm.pin import PinSource
        from openk_hsm.reach import Named, reach_of
        from openk_hsm.uri import parse_uri
        uri = parse_uri("pkcs11:token=x?module-path=/opt/vendor/lib.so")
        state, pin = Path(sys.argv[1]), PinSource(credential="pin")
        print(reach_of(uri, pin, state, Named()))
        print(state in reach_of(uri, pin, state, Named(read=[state])).write)
        """,
        str(tmp_path),
    )
    assert out.splitlines() == ["None", "True"]


@pytest.fixture(scope="module")
def daemon(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running_daemon(copy_template(template, tmp_path_factory.mktemp("confined") / "dev")) as running:
        with running.client() as client:
            client.vault.create("v")
            client.key.create("v/k", "aes-256-gcm")
            client.key.encrypt("v/k", b"x")
            client.system.metrics()
        yield running


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


PROCESSES = ("openkd", "hsm-0")


@pytest.mark.parametrize("process", PROCESSES)
def test_what_the_kernel_says_of_it(daemon: RunningDaemon, process: str) -> None:
    pid = daemon.pids[process]
    found = status(pid)
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert int(found["Seccomp_filters"]) >= 1
    assert [int(found[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
    assert found["Umask"] == "0077"
    limits = Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


@pytest.mark.parametrize("process", PROCESSES)
def test_no_descriptor_would_survive_an_exec(daemon: RunningDaemon, process: str) -> None:
    pid = daemon.pids[process]
    kept: list[tuple[str, str]] = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            flags = next(line for line in entry.read_text().splitlines() if line.startswith("flags:"))
        except FileNotFoundError:
            continue  # closed meanwhile
        if int(entry.name) > 2 and not int(flags.split()[1], 8) & O_CLOEXEC:
            kept.append((entry.name, os.readlink(f"/proc/{pid}/fd/{entry.name}")))
    assert kept == []


def test_the_daemon_maps_no_vendor_code(daemon: RunningDaemon) -> None:
    code = Path(f"/proc/{daemon.pids['openkd']}/maps").read_text()
    assert "softhsm" not in code
    assert "softhsm" in Path(f"/proc/{daemon.pids['hsm-0']}/maps").read_text()


def test_descriptors_are_bounded_by_the_hard_limit(daemon: RunningDaemon) -> None:
    limits = Path(f"/proc/{daemon.pids['openkd']}/limits").read_text()
    files = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()
    assert files[3] == files[4]


def test_no_file_is_anybody_elses(daemon: RunningDaemon) -> None:
    """Everything that daemon, worker and monitor made, from the socket to the store."""
    open_to_others = [
        path
        for path in daemon.folder.rglob("*")
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077 and "tokens" not in path.parts
        and path.name not in {"pids.json", "token-uri", "softhsm2.conf"}
    ]  # fmt: skip
    assert open_to_others == []


def test_the_environment_is_forgotten() -> None:
    out = check_child(
        """
        from openk_memory.hardening import *
        os.environ["OPENK_STRAY"] = os.environ["LC_TIME"] = "x"
        os.environ.pop("PYTHONPATH", None)
        print(seal_environment(KEPT).split()[1:], "OPENK_STRAY" in os.environ, "LC_TIME" in os.environ)
        print(libc.getenv(b"OPENK_STRAY"))
        os.environ["LD_PRELOAD"] = "x"
        print(attempt(Measure.ENVIRONMENT, lambda: seal_environment(None)))
        """
    )
    first, second, third = out.splitlines()
    assert first == "['variables', 'forgotten'] False True"
    assert second == "0"
    assert "MISSING" in third
    assert "LD_PRELOAD" in third
