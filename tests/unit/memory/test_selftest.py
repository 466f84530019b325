from __future__ import annotations

import time

import pytest

from openk_memory import kernel, region, selftest
from openk_memory.errors import Unsupported
from openk_memory.lease import Lease
from openk_memory.region import Kind, Reservation


@pytest.fixture(params=list(Kind))
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    chosen: Kind = request.param
    for module in (region, selftest):
        monkeypatch.setattr(module, "best_kind", lambda: chosen)
    return chosen


def test_holds_here_and_leaves_nothing_locked(kind: Kind) -> None:
    before = kernel.locked_bytes()
    started = time.perf_counter()
    findings = selftest.run()
    assert findings.kind is kind
    assert len(findings.checks) == 4
    assert time.perf_counter() - started < 1
    assert kernel.locked_bytes() == before


@pytest.mark.parametrize(
    ("kind_", "function", "lacks"),
    [(Kind.SECRET, "advise", "dc"), (Kind.LOCKED, "advise", "dd, wf"), (Kind.LOCKED, "lock", "lo")],
)
def test_a_recipe_that_does_nothing_is_noticed(
    kind_: Kind, function: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (region, selftest):
        monkeypatch.setattr(module, "best_kind", lambda: kind_)
    monkeypatch.setattr(kernel, function, lambda *_: None)
    with pytest.raises(Unsupported, match=f"lack {lacks}"):
        selftest.run()


def test_missing_guards_are_noticed(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(length: int) -> int:
        return kernel.map_memory(None, length, 3, kernel.MAP_PRIVATE | kernel.MAP_ANONYMOUS)

    monkeypatch.setattr(kernel, "reserve", unguarded)
    with pytest.raises(Unsupported, match="guard"):
        selftest.run()


def test_a_wipe_that_does_nothing_is_noticed(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reservation, "retire", lambda self: None)
    with pytest.raises(Unsupported, match="wipe left bytes"):
        selftest.run()


def test_a_pool_that_reuses_too_early_is_noticed(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Lease.release

    def careless(self: Lease) -> None:
        slot = self.slot
        release(self)
        slot.shelf.free.append(slot)

    monkeypatch.setattr(Lease, "release", careless)
    with pytest.raises(Unsupported, match="while a view of it lives"):
        selftest.check_pool()
