from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable

import pytest

from openk_memory import kernel, region
from openk_memory.errors import Damaged, DoubleRelease, LockLimitTooLow, Unsupported
from openk_memory.region import CANARY_BYTES, Kind, Region, Reservation
from tests.support.child import check_child, run_child

KINDS = pytest.mark.parametrize("kind", list(Kind))


@KINDS
@pytest.mark.parametrize("size", [1, 15, 16, 100, 4096, 100_000])
def test_view_is_exact_writable_zero_and_aligned(kind: Kind, size: int) -> None:
    with Region(size, kind) as made:
        assert len(made.view) == size
        assert made.view.format == "B"
        assert not any(made.view)
        assert made.address % 16 == 0
        made.view[:] = b"\xaa" * size
        assert ctypes.string_at(made.address, size) == b"\xaa" * size
        made.check()


@KINDS
def test_release_wipes_and_keeps_old_views_readable(kind: Kind) -> None:
    before = kernel.locked_bytes()
    made = Region(1000, kind)
    assert kernel.locked_bytes() > before
    made.view[:] = b"\xaa" * 1000
    kept = made.view[10:20]
    made.release()
    assert bytes(kept) == bytes(10)
    assert kernel.locked_bytes() == before
    with pytest.raises(DoubleRelease):
        made.release()


@KINDS
@pytest.mark.parametrize("offset", [-CANARY_BYTES, -1, 100, 100 + CANARY_BYTES - 1])
def test_one_byte_over_an_edge_is_detected(kind: Kind, offset: int) -> None:
    made = Region(100, kind)
    cell = ctypes.c_ubyte.from_address(made.address + offset)
    cell.value ^= 0xFF
    with pytest.raises(Damaged):
        made.check()
    with pytest.raises(Damaged):
        made.release()
    assert not any(made.view)  # wiped nevertheless


@KINDS
@pytest.mark.parametrize(
    "touch", ["address + 4096 + 100", "address + 5000", "address - 4096", "address - 2 * 4096 + 100"]
)
def test_beyond_the_edges_is_a_crash(kind: Kind, touch: str) -> None:
    done = run_child(
        f"""
        import ctypes, resource, sys
        from openk_memory.region import Kind, Region
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        made = Region(4096, Kind(sys.argv[1]))
        address = made.address
        made.view[4095] = 1
        print("alive", flush=True)
        ctypes.string_at({touch}, 1)
        print("not reached")
        """,
        kind.value,
    )
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGSEGV


@KINDS
def test_uncommitted_part_is_a_guard(kind: Kind) -> None:
    done = run_child(
        """
        import ctypes, resource, sys
        from openk_memory.region import Kind, Reservation
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        made = Reservation(1 << 20, Kind(sys.argv[1]))
        made.commit(4096)
        ctypes.string_at(made.address, 4096)
        print("alive", flush=True)
        ctypes.string_at(made.address + 4096, 1)
        """,
        kind.value,
    )
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGSEGV


@KINDS
def test_a_write_after_release_is_a_crash(kind: Kind) -> None:
    done = run_child(
        """
        import resource, sys
        from openk_memory.region import Kind, Region
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        made = Region(4096, Kind(sys.argv[1]))
        view = made.view
        made.release()
        print(sum(view), flush=True)
        view[0] = 1
        """,
        kind.value,
    )
    assert done.stdout == "0\n"
    assert done.returncode == -signal.SIGSEGV


@KINDS
def test_commit_grows_and_keeps_what_is_there(kind: Kind) -> None:
    made = Reservation(10 * kernel.PAGE, kind)
    made.commit(1)
    assert made.committed == kernel.PAGE
    kernel.fill(made.address, 0xAA, kernel.PAGE)
    made.commit(10 * kernel.PAGE)
    view = kernel.view_of(made.address, made.committed)
    assert bytes(view) == b"\xaa" * kernel.PAGE + bytes(9 * kernel.PAGE)
    made.commit(5)
    with pytest.raises(ValueError, match="beyond"):
        made.commit(11 * kernel.PAGE)
    made.retire()
    made.retire()  # harmless
    assert not any(view)


def test_not_even_root_reads_memfd_secret_from_outside() -> None:
    with Region(100, Kind.SECRET) as made, open("/proc/self/mem", "rb", buffering=0) as memory:
        with pytest.raises(OSError) as caught:
            os.pread(memory.fileno(), 100, made.address)
        assert caught.value.errno == errno.EIO
    with Region(100, Kind.LOCKED) as made, open("/proc/self/mem", "rb", buffering=0) as memory:
        assert os.pread(memory.fileno(), 100, made.address) == bytes(100)


def test_no_descriptor_stays_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with Region(100):
        assert sorted(os.listdir("/proc/self/fd")) == before


@KINDS
def test_limit_too_low(kind: Kind) -> None:
    out = check_child(
        """
        import resource, sys
        from openk_memory.errors import LockLimitTooLow
        from openk_memory.region import Kind, Region
        drop()
        for limit in (65536, 0):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, 65536))
            small = Region(100, Kind(sys.argv[1])) if limit else None
            try:
                Region(100_000, Kind(sys.argv[1]))
            except LockLimitTooLow as error:
                print(error.limit, error.needed, error.locked)
                assert str(error.needed + error.locked) in str(error)
            if small:
                small.release()
        """,
        kind.value,
    )
    assert out == "65536 102400 4096\n0 102400 0\n"


def test_nothing_stays_mapped_when_a_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EINVAL, "no such advice")

    made = Reservation(kernel.PAGE, Kind.LOCKED)
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "advise", fail)
        with pytest.raises(Unsupported, match="no such advice"):
            made.commit(kernel.PAGE)
    assert made.committed == 0
    made.commit(kernel.PAGE)
    made.retire()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSYS, Kind.LOCKED), (errno.EPERM, Kind.LOCKED), (errno.EMFILE, OSError)],
)
def test_fallback_only_where_the_kernel_has_none(
    number: int, expected: Kind | type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> int:
        raise OSError(number, os.strerror(number))

    probe: Callable[[], Kind] = region.best_kind.__wrapped__
    monkeypatch.setattr(kernel, "memfd_secret", absent)
    if isinstance(expected, Kind):
        assert probe() is expected
    else:
        with pytest.raises(expected):
            probe()


def test_empty_region_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Region(0)


def test_limit_error_names_everything() -> None:
    text = str(LockLimitTooLow(needed=4096, limit=0, locked=1000))
    for part in ("4096", "RLIMIT_MEMLOCK", "5096", "LimitMEMLOCK=5096", "ulimit -l 5", "memlock=5096"):
        assert part in text
