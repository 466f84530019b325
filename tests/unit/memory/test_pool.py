from __future__ import annotations

import ctypes
import gc
import os
import timeit
from collections.abc import Callable, Iterator
from pickle import PickleBuffer

import pytest

from openk_memory import kernel
from openk_memory.errors import Damaged, DoubleRelease, Exhausted, LockedMemoryError
from openk_memory.lease import Lease
from openk_memory.pool import STEP, Pool
from openk_memory.region import Kind
from openk_memory.wiping import copy, wipe
from tests.support.child import check_child


@pytest.fixture(params=list(Kind))
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(1 << 20, kind=request.param)
    yield pool
    gc.collect()
    if pool.in_use == 0 and pool.counters().quarantined == 0:
        pool.retire()


def test_locks_nothing_until_asked(pool: Pool) -> None:
    assert pool.counters().locked == 0
    before = kernel.locked_bytes()
    with pool.lease(10):
        assert pool.counters().locked == STEP
        assert kernel.locked_bytes() - before == STEP


def test_warm_bytes_are_locked_at_once() -> None:
    pool = Pool(1 << 20, warm_bytes=10_000)
    assert pool.counters().locked == kernel.round_up(10_000)
    pool.retire()


def test_view_and_address_are_the_same_memory(pool: Pool) -> None:
    with pool.lease(5) as lease:
        ctypes.memmove(lease.address, b"hello", 5)
        assert bytes(lease.view) == b"hello"


def test_empty_lease(pool: Pool) -> None:
    with pool.lease(0) as lease:
        assert len(lease.view) == 0


def test_negative_size(pool: Pool) -> None:
    for size in (-1, -256, -70_000):
        with pytest.raises(ValueError, match="smaller than nothing"):
            pool.lease(size)


@pytest.mark.parametrize("size", [1, 256, 300, 5000, 65536, 70_000])
def test_released_bytes_are_zero_in_memory(pool: Pool, size: int) -> None:
    lease = pool.lease(size)
    address = lease.address
    lease.view[:] = b"\xaa" * size
    lease.release()
    assert ctypes.string_at(address, size) == bytes(size)


def test_bytes_beyond_the_lease_but_inside_the_slot_are_wiped_too(pool: Pool) -> None:
    lease = pool.lease(10)
    ctypes.memset(lease.address, 0xAA, 200)  # what C code with a wrong length does
    lease.release()
    with pool.lease(256) as again:
        assert not any(again.view)


def test_a_slot_with_a_live_slice_is_not_given_out(pool: Pool) -> None:
    lease = pool.lease(100)
    address = lease.address
    kept = lease.view[:10]
    lease.release()
    assert bytes(kept) == bytes(10)
    others = [pool.lease(100) for _ in range(20)]
    assert address not in [other.address for other in others]
    kept[:4] = b"late"
    del kept
    others += [pool.lease(100) for _ in range(300)]
    again = next(other for other in others if other.address == address)
    assert not any(again.view)
    for other in others:
        other.release()


@pytest.mark.parametrize("hold", [PickleBuffer, ctypes.c_char.from_buffer, memoryview])
def test_a_slot_held_by_c_code_is_not_given_out(pool: Pool, hold: Callable[[memoryview], object]) -> None:
    lease = pool.lease(32)
    holder = hold(lease.view)
    lease.release()
    with pool.lease(32) as other:
        assert other.address != lease.address
    assert pool.counters().quarantined > 0
    del holder
    pool.retire()


@pytest.mark.parametrize("size", [16384, 200_000])
def test_views_in_cycles_do_not_keep_the_pool_for_ever(pool: Pool, size: int) -> None:
    """Where little is allocated, nobody looks for cycles on his own."""
    gc.disable()
    try:
        for _ in range(2 * pool.capacity // size):
            lease = pool.lease(size)
            cycle: list[object] = [lease.view[1:]]
            cycle.append(cycle)
            lease.release()
        assert pool.counters().refusals == 0
    finally:
        gc.enable()
        del cycle
        gc.collect()


def test_who_waits_is_asked_without_a_release(pool: Pool) -> None:
    """Whose view dies late makes room, but releases nothing."""
    asked: list[bool] = []
    pool.when_room(lambda: asked.append(True) or True)
    assert not asked
    pool.offer()
    pool.offer()
    assert asked == [True]


def test_slices_after_release_of_a_run_read_zeros(pool: Pool) -> None:
    lease = pool.lease(200_000)
    lease.view[:] = b"\xaa" * 200_000
    kept = lease.view[100_000:]
    lease.release()
    assert not any(kept)
    with pool.lease(200_000) as other:
        assert other.address != lease.address
    del kept


def test_holds_count(pool: Pool) -> None:
    lease = pool.lease(8)
    lease.view[:] = b"12345678"
    lease.hold()
    lease.release()
    assert bytes(lease.view) == b"12345678"
    lease.release()
    with pytest.raises(DoubleRelease):
        lease.release()
    with pytest.raises(DoubleRelease):
        lease.hold()
    assert pool.in_use == 0


def test_a_stale_lease_cannot_release_its_successor(pool: Pool) -> None:
    stale = pool.lease(8)
    stale.release()
    with pool.lease(8) as fresh:
        assert fresh.address == stale.address
        fresh.view[:] = b"12345678"
        with pytest.raises(DoubleRelease):
            stale.release()
        with pytest.raises(ValueError, match="released"):
            stale.view[0] = 1
        assert bytes(fresh.view) == b"12345678"


def test_context_manager_releases_on_error(pool: Pool) -> None:
    with pytest.raises(RuntimeError), pool.lease(8):
        raise RuntimeError
    assert pool.in_use == 0


def test_exhausted_then_room_again(pool: Pool) -> None:
    leases: list[Lease] = []
    with pytest.raises(Exhausted) as caught:
        leases.extend(iter(lambda: pool.lease(60_000), None))
    assert caught.value.possible
    assert caught.value.owner is None
    assert caught.value.capacity == pool.capacity
    assert "60000 bytes asked for" in str(caught.value)
    assert len(leases) >= 12
    leases.pop().release()
    pool.lease(60_000).release()
    for lease in leases:
        lease.release()
    assert pool.counters().refusals == 1


def test_too_large_for_ever(pool: Pool) -> None:
    with pytest.raises(Exhausted) as caught:
        pool.lease(pool.capacity)
    assert not caught.value.possible


def test_small_slots_become_one_large_run(pool: Pool) -> None:
    small = [pool.lease(4096) for _ in range(200)]
    for lease in small:
        lease.release()
    with pool.lease(900_000) as large:
        assert not any(large.view)  # the canaries of the slots are gone too


def test_owner_budget_and_reserve() -> None:
    pool = Pool(1 << 20, owner_bytes=100_000, reserve_bytes=300_000)
    mine = [pool.lease(4096, 1000) for _ in range(24)]
    with pytest.raises(Exhausted) as caught:
        pool.lease(4096, 1000)
    assert caught.value.owner == 1000
    assert caught.value.possible
    with pytest.raises(Exhausted) as caught:
        pool.lease(200_000, 1000)
    assert not caught.value.possible
    others: list[Lease] = []
    with pytest.raises(Exhausted, match="pool of locked memory is spent"):
        others.extend(pool.lease(60_000, owner) for owner in range(1, 100))
    daemon = [pool.lease(60_000) for _ in range(3)]  # the reserve is there for owner 0
    for lease in (*mine, *others, *daemon):
        lease.release()
    assert pool.held_by(1000) == 0
    pool.retire()


def test_budget_of_a_run() -> None:
    pool = Pool(1 << 20, owner_bytes=300_000)
    with pool.lease(200_000, 5), pytest.raises(Exhausted):
        pool.lease(200_000, 5)
    pool.lease(200_000, 5).release()
    pool.retire()


def test_a_dropped_lease_is_taken_back_with_a_warning(pool: Pool) -> None:
    lease = pool.lease(8)
    lease.view[:] = b"12345678"
    address = lease.address
    with pytest.warns(ResourceWarning, match="dropped without release"):
        del lease
    assert ctypes.string_at(address, 8) == bytes(8)
    assert pool.in_use == 0
    assert pool.counters().leaked == 1


def test_overrun_is_detected(pool: Pool) -> None:
    lease = pool.lease(256)
    address = lease.address
    ctypes.memset(address, 0xAA, 257)
    with pytest.raises(Damaged):
        lease.release()
    assert ctypes.string_at(address, 256) == bytes(256)
    with pool.lease(256) as other:
        assert other.address != address
    assert pool.in_use == 0


def test_overrun_of_a_run_is_detected(pool: Pool) -> None:
    lease = pool.lease(70_000)
    ctypes.memset(lease.address, 0xAA, kernel.round_up(70_016) - 15)
    with pytest.raises(Damaged):
        lease.release()


def test_waiters_are_told_in_order(pool: Pool) -> None:
    told: list[str] = []

    def waiter(name: str, answer: bool) -> Callable[[], bool]:
        def tell() -> bool:
            told.append(name)
            return answer

        return tell

    pool.when_room(waiter("a", True))
    pool.when_room(waiter("b", False))  # not enough for this one yet
    pool.when_room(waiter("c", True))
    assert pool.waits == 3
    lease = pool.lease(8)
    assert told == []
    lease.release()
    assert told[:3] == ["a", "b", "c"]
    assert pool.counters().waiting == 1
    told.clear()
    pool.lease(8).release()
    assert told == ["b"]


def test_a_refused_waiter_keeps_its_place_and_holds_nobody_up(pool: Pool) -> None:
    """Of one owner in order, but for a few that want too much; of several owners in turn."""
    told: list[str] = []
    able: set[str] = set()

    def wait(name: str, owner: int) -> None:
        def tell() -> bool:
            if name in able:
                told.append(name)
            return name in able

        pool.when_room(tell, owner)

    hold = pool.lease(8)  # nobody is asked because the pool is empty
    for number in range(40):
        wait(f"a{number}", 1)
    wait("b0", 2)
    wait("b1", 2)
    for _ in range(30):
        pool.lease(8).release()
    able |= {"b0", "a0", "a2"}
    pool.lease(8).release()
    assert sorted(told) == ["a0", "a2", "b0"]
    told.clear()
    able |= {f"a{number}" for number in range(40)} | {"b1"}
    pool.lease(8).release()
    assert [name for name in told if name[0] == "a"] == [f"a{number}" for number in range(40) if number not in {0, 2}]
    assert pool.counters().waiting == 0
    hold.release()


def test_many_that_want_too_much_do_not_starve_another_owner(pool: Pool) -> None:
    told: list[int] = []
    hold = pool.lease(8)
    for owner in range(1, 60):
        pool.when_room(lambda: False, owner)
    pool.when_room(lambda: told.append(99) is None, 99)
    for _ in range(5):
        pool.lease(8).release()
    assert told == [99]
    hold.release()


def test_a_waiter_may_lease_and_release(pool: Pool) -> None:
    got: list[bool] = []

    def take() -> bool:
        with pool.lease(8) as lease:
            got.append(len(lease.view) == 8)
        return True

    for _ in range(3):
        pool.when_room(take)
    pool.lease(8).release()
    assert got == [True] * 3
    assert pool.counters().waiting == 0


def test_retire_refuses_while_something_lives(pool: Pool) -> None:
    lease = pool.lease(8)
    with pytest.raises(LockedMemoryError, match="cannot be retired"):
        pool.retire()
    lease.release()


def test_lease_never_shows_its_bytes(pool: Pool) -> None:
    with pool.lease(16) as lease:
        lease.view[:] = b"sixteen byte key"
        assert "sixteen" not in repr(lease)
        assert "sixteen" not in str(lease)


def test_a_forked_child_gets_nothing(pool: Pool) -> None:
    lease = pool.lease(16)
    lease.view[:] = b"sixteen byte key"
    run = pool.lease(100_000)
    child = os.fork()
    if child == 0:  # no assert here: the child must not run pytest's handlers
        status = 10
        try:
            if ctypes.string_at(lease.address, 16) == bytes(16):
                status = 11
                pool.lease(1)
        except Exhausted:
            lease.release()
            run.release()
            try:
                pool.lease(100_000)
            except Exhausted:
                status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert bytes(lease.view) == b"sixteen byte key"
    lease.release()
    run.release()


def test_without_python_hooks_a_fork_does_not_have_the_pages() -> None:
    # fork through the C library: Python's at-fork hook does not run, only the kernel's rule protects.
    for kind, expected in ((Kind.SECRET, "signal"), (Kind.LOCKED, "zero")):
        out = check_child(
            """
            import ctypes, os, sys
            from openk_memory.pool import Pool
            from openk_memory.region import Kind
            lease = Pool(1 << 18, kind=Kind(sys.argv[1])).lease(4)
            lease.view[:] = b"live"
            child = ctypes.CDLL(None).fork()
            if child == 0:
                os._exit(0 if ctypes.string_at(lease.address, 4) == bytes(4) else 1)
            _, status = os.waitpid(child, 0)
            print("signal" if os.WIFSIGNALED(status) else "zero" if status == 0 else "inherited")
            lease.release()
            """,
            kind.value,
        )
        assert out.strip() == expected


def test_memlock_too_low_is_said_at_once() -> None:
    out = check_child(
        """
        import resource
        from openk_memory.errors import LockLimitTooLow, Exhausted
        from openk_memory.pool import Pool
        drop()
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
        try:
            Pool(2 << 20)
        except LockLimitTooLow as error:
            print(error.limit, error.needed, error)
        first = Pool(1 << 20)
        second = Pool(1 << 20)   # nothing locked yet: both fit alone, not together
        with first.lease(900_000):
            try:
                second.lease(500_000)
            except Exhausted as error:
                print("exhausted", error.possible)
        """
    )
    first, second = out.splitlines()
    assert first.startswith(f"{1 << 20} {2 << 20} ")
    for part in ("RLIMIT_MEMLOCK", "LimitMEMLOCK=2097152", "ulimit -l 2048", "memlock=2097152"):
        assert part in first
    assert second == "exhausted True"


def test_wipe_and_copy(pool: Pool) -> None:
    with pool.lease(10) as lease:
        assert copy(lease.view, memoryview(b"abcdef")) == 6
        assert bytes(lease.view) == b"abcdef\0\0\0\0"
        wipe(lease.view[1:3])
        assert bytes(lease.view) == b"a\0\0def\0\0\0\0"
        wipe(lease)
        assert not any(lease.view)
        with pytest.raises(ValueError, match="longer"):
            copy(lease.view[:3], memoryview(b"abcdef"))
    own = bytearray(b"abc")
    wipe(own)
    assert own == bytes(3)
    wipe(bytearray())
    with pytest.raises(TypeError):
        wipe(memoryview(b"read-only"))


def test_a_lease_costs_a_few_microseconds(pool: Pool) -> None:
    def many() -> None:
        for _ in range(1000):
            pool.lease(200, 5).release()

    def step(number: int) -> int:
        return number + 1

    def steps() -> None:
        for _ in range(1000):
            step(step(step(step(step(step(step(step(0))))))))

    many()
    turns = [(timeit.timeit(many, number=1), timeit.timeit(steps, number=1)) for _ in range(30)]
    lease, calls = (min(times) for times in zip(*turns, strict=True))
    assert lease < 15 * calls  # about four times; fifteen says that a slow path became the rule
