"""Attacks on a hardened process, each first shown to work on a process that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openk_memory import hardening, landlock, seccomp
from openk_memory.errors import Unsupported
from openk_memory.hardening import HardeningRefused, Measure, State
from openk_memory.landlock import Confinement
from tests.support.child import DROP, check_child

HARDEN = """
from openk_memory.hardening import *
from openk_memory.landlock import runtime_paths
def harden(**more):
    return harden_daemon(Confinement(runtime_paths(), **more))
"""


@contextmanager
def waiting_child(code: str) -> Iterator[int]:
    """A process that ran `code`, printed ready, and waits; its pid."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"{DROP}\n{code}\nprint('ready', flush=True)\nos.read(0, 1)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        try:
            assert child.stdout.readline() == b"ready\n"
            yield child.pid
        finally:
            child.stdin.close()


ATTACKS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
pid = int(sys.argv[1])
drop()
def attempt(name, act):
    ctypes.set_errno(0)
    try:
        act()
        print(name, "refused" if ctypes.get_errno() == 1 else "works")   # EPERM; EFAULT comes after the check
    except PermissionError:
        print(name, "refused")
attempt("mem", lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY))
attempt("maps", lambda: len(open(f"/proc/{pid}/maps").read()))
attempt("environ", lambda: len(open(f"/proc/{pid}/environ").read()))
attempt("fd", lambda: len(os.listdir(f"/proc/{pid}/fd")))
vector = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
attempt("vm_readv", lambda: libc.process_vm_readv(pid, vector, 1, vector, 1, 0))
attempt("ptrace", lambda: libc.ptrace(0x4206, pid, None, None))
"""


@pytest.mark.parametrize(("act", "outcome"), [("", "works"), ("forbid_dumps()", "refused")])
def test_same_user_cannot_look_inside(act: str, outcome: str) -> None:
    with waiting_child(f"from openk_memory.hardening import *\ndrop()\n{act}") as pid:
        lines = check_child(ATTACKS, str(pid)).splitlines()
    assert lines == [f"{name} {outcome}" for name in ("mem", "maps", "environ", "fd", "vm_readv", "ptrace")]


@pytest.mark.parametrize(("act", "dumped"), [("pass", True), ("forbid_dumps()", False), ("forbid_core()", False)])
def test_no_core(act: str, dumped: bool, tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if pattern.startswith("|"):  # a pipe gets the core whatever RLIMIT_CORE says: only the dumpable flag decides
        dumped = act != "forbid_dumps()"
    # WCOREDUMP of the status says what the kernel did, wherever the pattern points.
    out = check_child(
        """
        import resource, sys
        from openk_memory.hardening import *
        os.chdir(sys.argv[2])
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
            exec(sys.argv[1])
            os.abort()
        print(os.WCOREDUMP(os.waitpid(child, 0)[1]))
        """,
        act,
        str(tmp_path),
    )
    assert out.strip() == str(dumped)


CALLS = {
    "execve": "os.execv('/bin/true', ['true'])",
    "fork": "os.fork() or os._exit(0)",
    "spawn": "__import__('subprocess').run(['/bin/true'], check=True)",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "ptrace": "call(libc.ptrace, 0, 0, 0, 0)",
    "process_vm_readv": "call(libc.process_vm_readv, os.getpid(), None, 0, None, 0, 0)",
    "bpf": "call(libc.syscall, number('bpf'), 0, 0, 0)",
    "keyctl": "call(libc.syscall, number('keyctl'), 0, -3, 0)",
    "mount": "call(libc.mount, b'none', b'/', b'tmpfs', 0, None)",
    "unshare": "call(libc.unshare, 0x10000000)",
    "io_uring": "call(libc.syscall, number('io_uring_setup'), 0, None)",
    "userfaultfd": "call(libc.syscall, number('userfaultfd'), 0)",
    "perf": "call(libc.syscall, number('perf_event_open'), None, 0, -1, -1, 0)",
    "pidfd_getfd": "call(libc.syscall, number('pidfd_getfd'), -1, 0, 0)",
}


def test_denied_calls() -> None:
    out = check_child(
        """
        import ctypes, errno, sys, threading, json
        from openk_memory.hardening import *
        from openk_memory.seccomp import library
        libc = ctypes.CDLL(None, use_errno=True)
        number = lambda name: library().seccomp_syscall_resolve_name(name.encode())
        def call(function, *arguments):
            ctypes.set_errno(0)
            if function(*arguments) < 0:
                raise OSError(ctypes.get_errno(), "")
        forbid_new_privileges()
        print(deny_calls())
        for name, text in json.loads(sys.argv[1]).items():
            try:
                eval(text)
            except OSError as error:
                print(name, errno.errorcode[error.errno])
            else:
                print(name, "works")
        try:
            call(libc.syscall, number("clone3"), None, 0)
        except OSError as error:
            print("clone3", errno.errorcode[error.errno])
        thread = threading.Thread(target=lambda: print("thread", "works"))
        thread.start()
        thread.join()
        """,
        __import__("json").dumps(CALLS),
    )
    first, *rest = out.splitlines()
    assert first == f"{len(seccomp.DENIED)} calls denied, and new processes"
    assert rest == [*(f"{name} EPERM" for name in CALLS), "clone3 ENOSYS", "thread works"]


def test_children_where_the_module_needs_them() -> None:
    out = check_child(
        """
        from openk_memory.hardening import *
        forbid_new_privileges()
        print(deny_calls(children=True))
        child = os.fork()
        if child == 0:
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert out == f"{len(seccomp.DENIED)} calls denied\n7\n"


def test_every_denied_call_is_known_and_has_a_reason() -> None:
    library = seccomp.library()
    assert len(seccomp.DENIED) >= 27
    for name, reason in seccomp.DENIED.items():
        assert library.seccomp_syscall_resolve_name(name.encode()) != seccomp.UNKNOWN, name
        assert len(reason) > 15


@pytest.fixture
def rooms(tmp_path: Path) -> dict[str, Path]:
    tmp_path.chmod(0o755)
    made = {name: tmp_path / name for name in ("read", "write", "closed")}
    for room in made.values():
        room.mkdir()
        (room / "file").write_text("x")
        (room / "program").symlink_to("/bin/true")
    return made


LANDLOCK = """
import json, socket, sys
from openk_memory.hardening import *
from openk_memory.landlock import runtime_paths
read, write, closed = sys.argv[1:4]
forbid_new_privileges()
listening = socket.create_server(("127.0.0.1", 0))
outside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
port = listening.getsockname()[1]
if "no" not in sys.argv:
    confine(Confinement([*runtime_paths(), read], [write], (), ()))
def attempt(name, act):
    try:
        act()
        print(name, "works")
    except OSError as error:
        print(name, "refused" if error.errno in (1, 13) else error)
attempt("read read", lambda: open(f"{read}/file").read())
attempt("list read", lambda: os.listdir(read))
attempt("write read", lambda: open(f"{read}/file", "a"))
attempt("make in read", lambda: open(f"{read}/new", "w"))
attempt("remove in read", lambda: os.unlink(f"{read}/program"))
attempt("write write", lambda: open(f"{write}/new", "w").write("x"))
attempt("socket in write", lambda: socket.socket(socket.AF_UNIX).bind(f"{write}/socket"))
attempt("rename in write", lambda: os.rename(f"{write}/new", f"{write}/newer"))
attempt("read closed", lambda: open(f"{closed}/file").read())
attempt("list closed", lambda: os.listdir(closed))
attempt("truncate closed", lambda: os.truncate(f"{closed}/file", 0))
attempt("move to closed", lambda: os.rename(f"{write}/newer", f"{closed}/newer"))
attempt("bind tcp", lambda: socket.create_server(("127.0.0.1", 0)))
attempt("connect tcp", lambda: socket.create_connection(("127.0.0.1", port)))
attempt("signal outside", lambda: os.kill(os.getppid(), 0))
"""
OPEN = {"read read", "list read", "write write", "socket in write", "rename in write"}


@pytest.mark.parametrize("confined", [False, True])
def test_landlock(rooms: dict[str, Path], confined: bool) -> None:
    version = landlock.abi()
    assert version >= 1, "this kernel has no Landlock: run the tests where it is on"
    out = check_child(LANDLOCK, *map(str, rooms.values()), "yes" if confined else "no")
    outcome = dict(line.rsplit(" ", 1) for line in out.splitlines())
    assert len(outcome) == 15
    for name, result in outcome.items():
        needs = {"bind tcp": 4, "connect tcp": 4, "signal outside": 6, "truncate closed": 3}.get(name, 1)
        allowed = not confined or name in OPEN or version < needs
        assert result == ("works" if allowed else "refused"), name


def test_landlock_refuses_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        landlock.restrict(Confinement(read=[tmp_path / "absent"]))
    assert (tmp_path / "x").write_text("not confined") == 12


def test_a_file_may_be_named_too(rooms: dict[str, Path]) -> None:
    out = check_child(
        """
        import sys
        from openk_memory.hardening import *
        from openk_memory.landlock import runtime_paths
        forbid_new_privileges()
        confine(Confinement(runtime_paths(), [sys.argv[1] + "/file"], scope=False))
        open(sys.argv[1] + "/file", "w").write("y")
        try:
            open(sys.argv[1] + "/other", "w")
        except PermissionError:
            print("refused")
        """,
        str(rooms["closed"]),
    )
    assert out == "refused\n"


def test_capabilities_are_dropped() -> None:
    out = check_child(
        """
        import ctypes
        from openk_memory import capabilities
        from openk_memory.capabilities import Capability, permitted
        from openk_memory.hardening import *
        header, data = capabilities._get()
        data[0].inheritable = data[0].permitted
        assert libc.capset(ctypes.byref(header), ctypes.byref(data)) == 0
        print(drop_bounding() if os.getuid() == 0 else "only none")
        print(drop_capabilities(frozenset({Capability.IPC_LOCK})))
        print(permitted() & ~(1 << 14))
        print(drop_capabilities())
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(*(int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")))
        print(int(status["CapBnd"], 16) if os.getuid() == 0 else 0)
        """
    )
    assert out.splitlines() == ["only none", "only CAP_IPC_LOCK", "0", "only none", "0 0 0 0", "0"]


def test_bounding_set_without_the_right_is_reported() -> None:
    out = check_child(
        """
        from openk_memory.hardening import *
        drop()
        step = attempt(Measure.BOUNDING, drop_bounding)
        print(step.state, step.detail)
        """
    )
    assert out.startswith(("missing needs CAP_SETPCAP", "applied"))  # an emptied set in a container


def test_the_whole_order_on_a_real_process(rooms: dict[str, Path]) -> None:
    out = check_child(
        HARDEN
        + """
import sys, threading
import trio  # before: its import looks for the thread library with tools that are out of reach later
from openk_memory.pool import Pool
pool = Pool(1 << 18)
report = harden(write=[sys.argv[1]])
print(report)
print("---")
with pool.lease(16) as lease:
    lease.view[:4] = b"work"
async def main():
    print(await trio.to_thread.run_sync(lambda: "trio and threads work"))
trio.run(main)
print(oct(os.stat(os.open(sys.argv[1] + "/made", os.O_CREAT | os.O_WRONLY, 0o666)).st_mode & 0o777))
""",
        str(rooms["write"]),
    )
    report, _, rest = out.partition("---\n")
    lines = report.splitlines()
    assert [line.split(":")[0] for line in lines] == [measure.value for measure in Measure if measure is not Measure.TRACER_EVENTS]
    assert all(": applied: " in line or line.startswith((Measure.BOUNDING, Measure.ENVIRONMENT)) for line in lines)
    assert rest == "trio and threads work\n0o600\n"


def test_refuses_with_threads_running() -> None:
    out = check_child(
        HARDEN
        + """
import threading
stop = threading.Event()
threading.Thread(target=stop.wait).start()
try:
    harden()
except HardeningRefused as error:
    print(error)
    print([step.measure.value for step in error.report.steps], [step.measure.value for step in error.faults])
stop.set()
"""
    )
    first, second = out.splitlines()
    assert first == "single-thread: 2 threads run already; hardening comes before the first one"
    assert second == "['single-thread'] ['single-thread']"


def test_refuses_while_traced() -> None:
    code = """
        import signal, sys
        from openk_memory.hardening import *
        child = os.fork()
        if child == 0:
            libc.ptrace(0, 0, None, None)   # PTRACE_TRACEME
            try:
                harden_daemon(Confinement())
            except HardeningRefused as error:
                print(error, tracer() == os.getppid(), flush=True)
            os._exit(0)
        while os.WIFSTOPPED(os.waitpid(child, 0)[1]):
            libc.ptrace(7, child, None, None)
        """
    out = check_child(code)
    assert out.startswith("no-tracer: process ")
    assert out.endswith(" True\n")


def test_missing_measure_refuses_or_is_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise Unsupported("not here")

    def done(*_: object, **__: object) -> str:
        return "done"

    for name in ("check_single_thread", "check_tracer", "set_umask", "forbid_core", "forbid_dumps",
                 "forbid_new_privileges", "drop_bounding", "drop_capabilities", "seal_environment", "confine", "deny_calls"):  # fmt: skip
        monkeypatch.setattr(hardening, name, done)
    monkeypatch.setattr(hardening, "set_umask", absent)
    with pytest.raises(HardeningRefused, match="umask: not here") as caught:
        hardening.harden_daemon(Confinement())
    assert [step.state for step in caught.value.report.steps] == [State.APPLIED, State.APPLIED, State.MISSING]
    report = hardening.harden_worker(None, tolerate=frozenset({Measure.UMASK}))
    assert [step.measure for step in report.missing] == [Measure.UMASK]
    assert "umask: missing: not here" in str(report)


def test_worker_without_paths_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="--reach-read and --reach-write"):
        hardening.confine(None)


def test_without_libseccomp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    with pytest.raises(Unsupported, match="libseccomp2"):
        seccomp.library.__wrapped__()


def test_tracer_of_this_process_is_nobody() -> None:
    assert hardening.tracer() == 0 or os.environ.get("DEBUGGER")
