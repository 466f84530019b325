from __future__ import annotations

import array
import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest

from openk_memory import kernel
from openk_memory.errors import DoubleRelease, Unsupported
from openk_memory.handoff import SEALS, HandOff
from tests.support.child import check_child, run_child

SIZE = 100_000


def test_both_sides_see_the_same_bytes() -> None:
    with HandOff.create(SIZE) as ours:
        theirs = HandOff.attach(os.dup(ours.fd), SIZE)
        assert len(ours.view) == len(theirs.view) == ours.size == SIZE
        assert ours.address != theirs.address
        assert not any(theirs.view)
        ours.view[SIZE - 1] = 7
        assert theirs.view[SIZE - 1] == 7
        theirs.close()


def test_across_processes_by_scm_rights(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, HandOff.create(SIZE) as region:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
                region.close_fd()
                there = HandOff.attach(fds[0], SIZE)
                there.view[:5] = b"hello"
                status = 0
            finally:
                os._exit(status)
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [region.fd]))])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bytes(region.view[:5]) == b"hello"


def test_close_wipes_for_both_and_gives_the_quota_back() -> None:
    before = kernel.locked_bytes()
    ours = HandOff.create(SIZE)
    theirs = HandOff.attach(os.dup(ours.fd), SIZE)
    assert kernel.locked_bytes() == before + 2 * kernel.round_up(SIZE)
    ours.view[:3] = b"abc"
    kept = ours.view[:3]
    ours.close()
    assert bytes(theirs.view[:3]) == bytes(3)
    assert bytes(kept) == bytes(3)
    theirs.close()
    assert kernel.locked_bytes() == before
    with pytest.raises(DoubleRelease):
        ours.close()


def test_nobody_can_resize_it() -> None:
    with HandOff.create(SIZE) as region:
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(region.fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(region.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_close_fd_keeps_the_memory() -> None:
    with HandOff.create(SIZE) as region:
        region.close_fd()
        region.close_fd()
        region.view[0] = 1
        assert region.fd == -1


def memfd(size: int, seals: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize(
    ("size", "seals", "text"),
    [
        (8192, 0, "not sealed"),
        (8192, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL, "not sealed"),
        (8192, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, "not sealed"),
        (8192, SEALS | fcntl.F_SEAL_WRITE, "sealed against writing"),
        (8192, SEALS | 0x10, "sealed against writing"),
        (4096, SEALS, "has 4096 bytes, not 8192"),
        (12288, SEALS, "has 12288 bytes, not 8192"),
    ],
)
def test_attach_refuses_what_is_not_such_a_region(size: int, seals: int, text: str) -> None:
    fd = memfd(size, seals)
    with pytest.raises(Unsupported, match=text):
        HandOff.attach(fd, 8000)
    os.close(fd)  # still ours


def test_attach_refuses_other_descriptors(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(8192))
    for fd in (os.open(file, os.O_RDWR), os.open(tmp_path, os.O_RDONLY), *os.pipe()):
        with pytest.raises(Unsupported):
            HandOff.attach(fd, 8192)
        os.close(fd)


@pytest.mark.parametrize("size", [0, -1])
def test_empty_region_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        HandOff.create(size)
    with pytest.raises(ValueError, match="at least one byte"):
        HandOff.attach(-1, size)


@pytest.mark.parametrize("offset", [-1, SIZE + 4096])
def test_guards(offset: int) -> None:
    done = run_child(
        f"""
        import ctypes, resource
        from openk_memory.handoff import HandOff
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        region = HandOff.create({SIZE})
        print("alive", flush=True)
        ctypes.string_at(region.address + {offset}, 1)
        """
    )
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGSEGV


def test_a_fork_does_not_have_the_pages() -> None:
    out = check_child(
        """
        import ctypes, os, resource
        from openk_memory.handoff import HandOff
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        region = HandOff.create(4096)
        child = os.fork()
        if child == 0:
            ctypes.string_at(region.address, 1)
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]))
        """
    )
    assert int(out) == signal.SIGSEGV


def test_limit_too_low_leaves_no_descriptor() -> None:
    out = check_child(
        """
        import os, resource
        from openk_memory.errors import LockLimitTooLow
        from openk_memory.handoff import HandOff
        drop()
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        before = os.listdir("/proc/self/fd")
        try:
            HandOff.create(100_000)
        except LockLimitTooLow as error:
            print(error.needed, len(before) - len(os.listdir("/proc/self/fd")))
        """
    )
    assert out == "102400 0\n"
