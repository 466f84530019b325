"""Who connected: real sockets, real processes, the kernel's own answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.identity import kernel, peer
from openk_daemon.identity.caller import Caller
from openk_daemon.identity.peer import Identifier, audit_fragment, identify
from openk_daemon.identity.units import cgroup_of, unit_of
from openk_daemon.refusal import Refusal

CONNECT = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('connected',flush=True); sys.stdin.read()"
GROUPS = "import os,sys; os.setgroups(range(10, 10 + int(sys.argv[2])));"


@pytest.fixture
def listener(tmp_path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(8)
        yield listening


@contextmanager
def client(
    listener: socket.socket, code: str = CONNECT, *arguments: str, **options: object
) -> Generator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that has connected, and the accepted end."""
    command = [sys.executable, "-I", "-c", code, str(listener.getsockname()), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == b"connected\n"
            accepted, _ = listener.accept()
            with accepted:
                yield process, accepted
        finally:
            process.kill()


@pytest.fixture
def pair() -> Generator[socket.socket]:
    """One end of a pair whose both ends this process made."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def refusal(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    assert caught.value.code.name == "auth.unidentified"
    return caught.value


def test_a_client_is_who_it_is(listener: socket.socket) -> None:
    with client(listener) as (process, accepted):
        found = identify(accepted, 7, administrators=())
    assert found.pid == process.pid
    assert found.connection == 7
    assert found.caller.uid == os.getuid()
    assert found.caller.gid == os.getgid()
    assert found.caller.groups == tuple(sorted(os.getgroups()))
    assert found.caller.executable == os.path.realpath(sys.executable)
    assert not found.caller.administrator


def test_administrators_are_the_configured_ones(pair: socket.socket) -> None:
    assert identify(pair, 1, administrators=[os.getuid()]).caller.administrator
    assert not identify(pair, 1, administrators=[os.getuid() + 1]).caller.administrator


@pytest.mark.parametrize("many", [0, 1, 256, 257, 3000])
def test_all_groups_are_known(listener: socket.socket, many: int) -> None:
    """Python's getsockopt reads 256 at most."""
    if os.geteuid() != 0:  # only root chooses groups; one's own must then be right
        many = -1
    code = CONNECT if many < 0 else GROUPS + CONNECT
    with client(listener, code, str(many)) as (_, accepted):
        found = identify(accepted, 1, administrators=()).caller.groups
    assert found == (tuple(sorted(os.getgroups())) if many < 0 else tuple(range(10, 10 + many)))


def test_another_users_process(listener: socket.socket, tmp_path: Path) -> None:
    uid = 54321 if os.geteuid() == 0 else os.getuid()
    left, right = socket.socketpair()
    with left, right:  # a path under tmp_path would be closed to that user
        if os.geteuid() == 0:
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                with suppress(BaseException):
                    os.setgroups([])
                    os.setresgid(uid, uid, uid)
                    os.setresuid(uid, uid, uid)
                    _mine, its = socket.socketpair()
                    socket.send_fds(right, [b"x"], [its.fileno()])
                    os.read(read, 1)
                os._exit(0)
            try:
                _, (descriptor,), _, _ = socket.recv_fds(left, 1, 1)
                with socket.socket(fileno=descriptor) as theirs:
                    found = identify(theirs, 1, administrators=[0])
            finally:
                os.write(write, b"x")
                os.waitpid(child, 0)
                os.close(read)
                os.close(write)
            assert found.pid == child
        else:
            found = identify(left, 1, administrators=[0])
    assert found.caller.uid == uid
    assert not found.caller.administrator


def test_a_process_that_has_ended_is_refused(listener: socket.socket) -> None:
    """Its unit can no longer be told, and a forbid on the unit must not be evaded by ending."""
    with client(listener) as (process, accepted):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet waited for
        assert "has ended" in refusal(lambda: identify(accepted, 1, administrators=())).message
        process.wait()
        refusal(lambda: identify(accepted, 1, administrators=()))


def test_who_connected_stays_whoever_uses_the_socket(listener: socket.socket) -> None:
    """The child hands its socket to a grandchild and ends: the connection is nobody's."""
    code = CONNECT.replace("print(", "import os; os.fork() and os._exit(0); print(")
    command = [sys.executable, "-I", "-c", code, str(listener.getsockname())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        accepted, _ = listener.accept()
        with accepted:
            process.wait()
            refusal(lambda: identify(accepted, 1, administrators=()))


def test_a_process_that_ends_while_it_is_looked_at_is_refused(
    pair: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "is_alive", lambda _: False)
    refusal(lambda: identify(pair, 1, administrators=()))


def test_what_is_no_connected_unix_socket_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as lonely:
        refusal(lambda: identify(lonely, 1, administrators=()))
    with socket.socket(socket.AF_INET) as internet:
        refusal(lambda: identify(internet, 1, administrators=()))
    closed = socket.socket(socket.AF_UNIX)
    closed.close()
    refusal(lambda: identify(closed, 1, administrators=()))


@pytest.mark.parametrize("uid", [0xFFFFFFFF, int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))])
def test_a_uid_that_stands_for_anybody_is_refused(
    pair: socket.socket, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    monkeypatch.setattr(peer, "peer_credentials", lambda _: (os.getpid(), uid, 1))
    assert "stands for anybody" in refusal(lambda: identify(pair, 1, administrators=[uid])).message


def test_a_process_of_another_pid_namespace_has_a_uid_and_no_unit(
    pair: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "peer_credentials", lambda _: (0, 1234, 1234))
    found = identify(pair, 1, administrators=())
    assert (found.caller.uid, found.caller.unit, found.caller.executable, found.pid) == (1234, None, None, 0)


def test_on_older_kernels_the_number_is_held_and_the_user_compared(
    pair: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = identify(pair, 1, administrators=())
    monkeypatch.setattr(peer, "peer_pidfd", lambda _: None)
    assert identify(pair, 1, administrators=()) == newer
    # The number now belongs to a process of another user: it was used again.
    monkeypatch.setattr(peer, "peer_credentials", lambda _: (os.getpid(), 12321, 12321))
    refusal(lambda: identify(pair, 1, administrators=()))


def test_no_descriptor_is_left_open(pair: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    identifier = Identifier(())
    before = descriptors()
    for _ in range(20):
        identifier.identify(pair, 1)
    monkeypatch.setattr(peer, "is_alive", lambda _: False)
    for _ in range(20):
        refusal(lambda: identifier.identify(pair, 1))
    assert descriptors() == before


def test_equal_callers_are_one_object(pair: socket.socket) -> None:
    identifier = Identifier(())
    assert identifier.identify(pair, 1).caller is identifier.identify(pair, 2).caller


def test_it_is_quick_enough_for_accepting(pair: socket.socket) -> None:
    """Five times what one read of a file in /proc takes; the reads of a look at all of /proc would be hundreds."""
    identifier = Identifier(())
    assert best(lambda: identifier.identify(pair, 1)) < 15 * best(Path("/proc/self/cgroup").read_bytes)


def best(act: Callable[[], object]) -> float:
    """Seconds, of a hundred times."""
    took: list[float] = []
    for _ in range(100):
        begin = time.perf_counter()
        act()
        took.append(time.perf_counter() - begin)
    return min(took)


# ---- units, in a real cgroup where this test may make one ----------------------------------------------------------


def cgroup_root() -> Path | None:
    for root in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (
            (root / "cgroup.procs").exists()
            and (root / "cgroup.controllers").exists()
            and os.access(root / "cgroup.procs", os.W_OK)
        ):
            return root
    return None


def test_the_unit_is_that_of_the_processs_cgroup(listener: socket.socket) -> None:
    with client(listener) as (process, accepted):
        root = cgroup_root()
        if root is None:  # no right to make a cgroup: then it is our own
            cgroup = cgroup_of(Path("/proc/self/cgroup").read_text("utf-8"))
            unit = unit_of(cgroup.path) if cgroup else None
            assert identify(accepted, 1, administrators=()).caller.unit == (unit.name if unit else None)
            return
        made = root / f"openktest{os.getpid()}.slice"
        unit_folder = made / "openk-web.service"
        (unit_folder / "below").mkdir(parents=True)
        home = root / "cgroup.procs"
        try:
            (unit_folder / "below" / "cgroup.procs").write_text(str(process.pid), "ascii")
            assert identify(accepted, 1, administrators=()).caller.unit == "openk-web.service"
            pidfd = kernel.peer_pidfd(accepted)
            if pidfd is not None:
                cgroup_id = kernel.cgroup_id(pidfd)
                os.close(pidfd)
                assert cgroup_id in {None, (unit_folder / "below").stat().st_ino}
        finally:
            home.write_text(str(process.pid), "ascii")
            for folder in (unit_folder / "below", unit_folder, made):
                folder.rmdir()


class Fake:
    """A /proc and a cgroup tree of our own, around this very process."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc = where / "proc"
        self.cgroups = where / "cgroup"
        (self.proc / str(os.getpid())).mkdir(parents=True)
        self.ids: int | None = None
        self.attributes: dict[tuple[str, str], bytes] = {}
        monkeypatch.setattr(peer, "_V2_ROOTS", (str(self.cgroups),))
        monkeypatch.setattr(peer, "_V1_ROOTS", (str(where / "v1"),))
        monkeypatch.setattr(peer, "cgroup_id", lambda _: self.ids)
        monkeypatch.setattr(os, "getxattr", self._getxattr)

    def _getxattr(self, path: str, name: str) -> bytes:
        if (path, name) not in self.attributes:
            raise OSError(61, "No data available")
        return self.attributes[path, name]

    def put(self, path: str, lines: str | None = None) -> int:
        """Move this process to `path`. Returns the cgroup's id."""
        folder = Path(f"{self.cgroups}{path}")
        folder.mkdir(parents=True, exist_ok=True)
        (self.proc / str(os.getpid()) / "cgroup").write_text(f"0::{path}\n" if lines is None else lines, "utf-8")
        return folder.stat().st_ino


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


def test_the_invocation_is_that_of_the_unit(pair: socket.socket, fake: Fake) -> None:
    fake.put("/system.slice/web.service/below")
    unit = f"{fake.cgroups}/system.slice/web.service"
    identifier = Identifier((), str(fake.proc))
    assert identifier.identify(pair, 1).caller.invocation is None
    for name in ("trusted.invocation_id", "user.invocation_id"):
        value = name.encode().hex().encode()[:32]
        fake.attributes[unit, name] = value
        assert identifier.identify(pair, 1).caller.invocation == value.decode()
    for junk in (b"", b"x" * 32, b"a" * 31, b"\xff" * 32):
        fake.attributes = {(unit, "user.invocation_id"): junk}
        assert identifier.identify(pair, 1).caller.invocation is None


def test_a_known_cgroup_id_saves_the_look_but_not_the_invocation(pair: socket.socket, fake: Fake) -> None:
    fake.ids = fake.put("/system.slice/web.service")
    unit = f"{fake.cgroups}/system.slice/web.service"
    identifier = Identifier((), str(fake.proc))
    assert identifier.identify(pair, 1).caller.unit == "web.service"
    (fake.proc / str(os.getpid()) / "cgroup").unlink()
    fake.attributes[unit, "user.invocation_id"] = b"a" * 32  # the unit was started again in the same cgroup
    found = identifier.identify(pair, 1).caller
    assert (found.unit, found.invocation) == ("web.service", "a" * 32)
    fake.ids = 1 << 40  # another cgroup: must be looked up, and cannot
    refusal(lambda: identifier.identify(pair, 1))


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ("0::/system.slice/web.service\n", True),
        ("1:name=systemd:/\n0::/system.slice/web.service\n", False),  # the id does not say where systemd put it
        ("1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service\n", False),
    ],
)
def test_an_id_is_remembered_only_where_it_says_all(pair: socket.socket, fake: Fake, lines: str, known: bool) -> None:
    fake.ids = fake.put("/system.slice/web.service", lines)
    identifier = Identifier((), str(fake.proc))
    assert identifier.identify(pair, 1).caller.unit == "web.service"
    assert bool(identifier._cgroups) is known


def test_an_id_that_is_another_folders_is_not_remembered(pair: socket.socket, fake: Fake) -> None:
    fake.ids = fake.put("/system.slice/web.service") + 1
    identifier = Identifier((), str(fake.proc))
    assert identifier.identify(pair, 1).caller.unit == "web.service"
    assert not identifier._cgroups


def test_what_is_remembered_is_bounded(pair: socket.socket, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_KNOWN_MOST", 3)
    identifier = Identifier((), str(fake.proc))
    for number in range(10):
        fake.ids = fake.put(f"/system.slice/web{number}.service")
        assert identifier.identify(pair, 1).caller.unit == f"web{number}.service"
        assert len(identifier._cgroups) <= 3
        assert len(identifier._callers) <= 3


def test_a_program_is_believed_only_where_the_path_is_that_file(pair: socket.socket, tmp_path: Path) -> None:
    """In a mount namespace of its own a process can have any file at "/usr/bin/trusted"."""
    program, other = tmp_path / "program", tmp_path / "other"
    for file in (program, other):
        file.write_text("", "ascii")
    folder = tmp_path / "proc" / str(os.getpid())
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text("0::/\n", "ascii")
    identifier = Identifier((), str(tmp_path / "proc"))
    (folder / "exe").symlink_to(program)
    assert identifier.identify(pair, 1).caller.executable == str(program)
    (folder / "exe").unlink()
    assert identifier.identify(pair, 1).caller.executable is None  # not ours to read
    (folder / "exe").symlink_to(f"{program} (deleted)")
    assert identifier.identify(pair, 1).caller.executable is None
    (folder / "exe").unlink()
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(odd)).write_text("", "ascii")
    (folder / "exe").symlink_to(os.fsdecode(odd))
    assert identifier.identify(pair, 1).caller.executable is None  # no text: no policy could name it


def test_a_program_behind_another_mount_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: socket.socket
) -> None:
    real = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "/bin/sh" if str(path).endswith("/exe") else real(path))
    assert identify(pair, 1, administrators=()).caller.executable is None


texts = st.one_of(st.none(), st.text(max_size=20))


@given(
    st.builds(Caller, st.integers(0, 2**32), st.integers(0, 2**32), st.just(()), texts, texts, texts),
    st.integers(0, 2**22),
)
def test_the_audit_fragment_is_json_of_ascii(caller: Caller, pid: int) -> None:
    fragment = audit_fragment(caller, pid)
    assert fragment.isascii()
    assert "\n" not in fragment
    assert json.loads(f"{{{fragment}}}") == {
        "uid": caller.uid,
        "gid": caller.gid,
        "pid": pid,
        "unit": caller.unit,
        "invocation": caller.invocation,
        "exe": caller.executable,
    }
