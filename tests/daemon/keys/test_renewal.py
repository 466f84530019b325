"""openkd rotates keys by itself: once for each time one is due, with a record, at a bounded pace, whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.audit.seam import AuditUnavailable
from openk_daemon.call import Outcome
from openk_daemon.keys.parameters import Parameters
from openk_daemon.keys.state import KeyState
from openk_daemon.observe.health import Health, State
from openk_daemon.observe.metrics import Metrics
from openk_daemon.renewal import PAUSE, TOLD_MOST, Bars, Pace, Renewal
from openk_daemon.rotation import DAY, Rule
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Conflict, Full, StoreError
from openk_daemon.watch.events import Events
from openk_hsm.errors import Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Flow, settle
from openk_hsm.seam import Algorithm
from openk_hsm.software import SoftwareBackend
from tests.daemon.serving.kit import HeldLedger
from tests.support.custody import Custody, make_call, run
from tests.support.lanes import SteeredLane
from tests.support.logs import Captured, captured

ROTATE = Rule("quarterly", after=90 * DAY, rotates=True)
TELL = Rule("releases", after=30 * DAY, vaults=frozenset({"build"}))
SECONDS = 90 * 86_400.0


class Bench:
    """A Renewal over a custody's keys. `sealed`, `unrecorded`, `unsteady` bar it."""

    def __init__(self, logged: Captured, *, lane: SteeredLane | None = None) -> None:
        self.custody = Custody(lane=lane)
        assert isinstance(self.custody.store, MemoryStore)
        self.ledger = HeldLedger(self.custody.store)
        self.events = Events("0000abcd")
        self.sealed = self.unrecorded = self.unsteady = False
        bars = Bars(lambda: self.sealed, lambda: self.unrecorded, lambda: self.unsteady)
        self.logged = logged
        self.renewal = Renewal(
            self.custody.keys, self.ledger, self.events, bars, logged.log, self.custody.clock
        )
        self.metrics, self.health = Metrics(), Health()
        self.renewal.watch(self.metrics, self.health)
        self.renewal.replace([ROTATE, TELL], Pace(seconds=10.0, keys=10, per_minute=600))
        for vault in ("payments", "build"):
            self.custody.call("vault.create", vault=vault)

    def create(self, *names: str, algorithm: str = "aes-256-gcm") -> None:
        for name in names:
            self.custody.call("key.create", key=name, algorithm=algorithm)

    async def steps(self, count: int, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(count):
            if until():
                return
            self.custody.clock.pass_(1.0)
            with trio.fail_after(30):
                await self.renewal.step()

    def version(self, name: str) -> int:
        return int(self.custody.call("key.describe", key=name)["version"])

    def records(self) -> list[dict[str, object]]:
        return [json.loads(entry) for entry in self.ledger.entries]

    def reading(self, line: str) -> float:
        (found,) = [text for text in self.metrics.expose().splitlines() if text.startswith(f"openk_{line} ")]
        return float(found.rpartition(" ")[2])


@pytest.fixture
def bench(logged: Captured) -> Bench:
    return Bench(logged)


async def test_a_key_that_is_due_is_rotated_once_with_its_record(bench: Bench) -> None:
    bench.create("payments/card", "payments/other")
    bench.custody.clock.pass_(SECONDS - 100)
    bench.custody.call("key.rotate", key="payments/other")
    sealed = bench.custody.call("key.encrypt", key="payments/card", input=b"4111")["ciphertext"]
    await bench.steps(50)
    assert bench.version("payments/card") == 1, "not yet"
    await bench.steps(200)
    assert (bench.version("payments/card"), bench.version("payments/other")) == (2, 2)
    assert bench.records() == [
        {
            "event": "key.rotate", "by": "rotation.quarterly", "key": "payments/card", "outcome": "ok",
            "algorithm": "aes-256-gcm", "protection": "wrapped", "version": 2,
        }
    ]  # fmt: skip
    assert bench.custody.call("key.decrypt", key="payments/card", ciphertext=sealed)["plaintext"] == b"4111"
    assert bench.custody.again().call("key.describe", key="payments/card")["version"] == 2
    assert bench.logged.one("key.rotated", key="payments/card", version=2, rule="quarterly")
    (event,) = bench.events.since(None).events
    assert (event.kind, event.subject, event.value) == ("keys.rotated", "quarterly", 1)
    assert "payments" not in event.text, "events name no key"
    assert bench.reading('rotations_total{rule="quarterly"}') == 1
    assert bench.reading("rotation_looked_total") > 40
    assert bench.health.report().components["rotation"].state is State.OK


async def test_a_key_that_is_due_is_told_of_where_no_rule_rotates_it(bench: Bench) -> None:
    bench.create("build/release", algorithm="ed25519")
    bench.create("build/cache")
    bench.custody.clock.pass_(SECONDS)
    await bench.steps(30)
    assert (bench.version("build/release"), bench.version("build/cache")) == (1, 2)
    assert bench.renewal.overdue == {"releases": 1}
    assert bench.renewal.overdue_total == bench.reading('rotation_overdue{rule="releases"}') == 1
    finding = bench.health.report().components["rotation"]
    assert (finding.state, finding.reason) == (
        State.DEGRADED, "keys are due for rotation: 1 by rule releases (openk key list shows which)",
    )  # fmt: skip
    assert bench.logged.one("key.due", level="warning", key="build/release", version=1)
    bench.custody.call("key.rotate", key="build/release")
    await bench.steps(12)
    assert bench.renewal.overdue == {}
    assert bench.health.report().components["rotation"].state is State.OK
    bench.custody.clock.pass_(SECONDS)
    await bench.steps(30)
    assert len(bench.logged.lines("key.due", key="build/release")) == 2, "once for each version"


async def test_a_client_that_rotates_at_the_same_moment_is_the_only_one(bench: Bench) -> None:
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    call = make_call("key.rotate", None, {"key": "payments/card"})
    outcome = run(bench.custody.handlers["key.rotate"](call))  # its turn: drafted, and not durable yet
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.steps, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert bench.version("payments/card") == 1
            bench.custody.commit(outcome)
    await bench.steps(30)
    assert bench.version("payments/card") == 2
    assert bench.records() == [], "openkd left it alone"
    bench.logged.none("key.unrotated")
    assert bench.renewal.overdue == {}


async def test_of_two_that_rotate_the_client_waits_for_its_turn(bench: Bench) -> None:
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    bench.ledger.hold = True
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.steps, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert len(bench.ledger.waiting) == 1

            async def rotate() -> None:
                call = make_call("key.rotate", None, {"key": "payments/card"})
                bench.custody.commit(await settle(bench.custody.handlers["key.rotate"](call)))

            nursery.start_soon(rotate)
            await trio.testing.wait_all_tasks_blocked()
            bench.ledger.let_go()
    assert bench.version("payments/card") == 3, "who asks gets another version: two were asked for"


@pytest.mark.parametrize(
    ("error", "code"),
    [(Full("no space"), "store.full"), (StoreError("slow"), "store.unavailable"), (AuditUnavailable("x"), "audit.unavailable")],
)  # fmt: skip
async def test_what_cannot_be_written_waits_and_is_told_once(bench: Bench, error: Exception, code: str) -> None:
    bench.create("payments/a", "payments/b")
    bench.custody.clock.pass_(SECONDS)
    bench.ledger.always = error
    await bench.steps(60)
    assert (bench.version("payments/a"), bench.version("payments/b")) == (1, 1)
    assert bench.logged.one("rotation.waits", level="warning", code=code)
    assert bench.health.report().components["rotation"].reason == (
        f"keys that are due are not rotated: {code}; see the log"
    )
    assert 2 <= bench.reading('rotations_failed_total{rule="quarterly"}') <= 60 / PAUSE, "at a bounded pace"
    assert bench.renewal.overdue_total == 2
    bench.ledger.always = None
    await bench.steps(60)
    assert (bench.version("payments/a"), bench.version("payments/b")) == (2, 2)
    assert len(bench.records()) == 2
    assert bench.logged.one("rotation.resumed", was=code)
    assert bench.health.report().components["rotation"].state is State.OK
    for name in ("payments/a", "payments/b"):
        bench.custody.call("key.rotate", key=name)  # no turn was kept


async def test_nothing_is_made_in_vain_while_the_log_takes_nothing(bench: Bench) -> None:
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    bench.unrecorded = True
    await bench.steps(30)
    assert bench.renewal.looked == 0
    assert bench.logged.one("rotation.waits", code="audit.unavailable")
    bench.unrecorded = False
    await bench.steps(30)
    assert bench.version("payments/card") == 2


async def test_a_sealed_daemon_rotates_nothing(bench: Bench) -> None:
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    bench.sealed = True
    await bench.steps(30)
    assert (bench.version("payments/card"), bench.renewal.looked) == (1, 0)
    bench.logged.none("rotation.waits")
    bench.sealed = False
    await bench.steps(3)
    assert bench.version("payments/card") == 2


async def test_a_daemon_that_is_sealed_in_the_middle_stops_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create("payments/a", "payments/b", "payments/c")
    bench.custody.clock.pass_(SECONDS)
    renew = bench.custody.keys.renew

    def and_seal(name: str, wanted: Callable[[KeyState], bool]) -> Flow[Outcome | None]:
        bench.sealed = True
        return renew(name, wanted)

    monkeypatch.setattr(bench.custody.keys, "renew", and_seal)
    await bench.steps(5)
    assert bench.renewal.rotated.total() == 1
    monkeypatch.undo()
    bench.sealed = False
    await bench.steps(5)
    assert {bench.version(f"payments/{name}") for name in "abc"} == {2}
    assert bench.reading('rotations_failed_total{rule="quarterly"}') == 0


async def test_while_the_clock_is_unsteady_nothing_is_rotated(bench: Bench) -> None:
    """Somebody set it forward by a quarter, and sets it back."""
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    bench.unsteady = True
    await bench.steps(30)
    assert bench.version("payments/card") == 1
    assert bench.renewal.overdue_total == 1
    assert bench.logged.one("rotation.waits", code="the wall clock was set")
    bench.custody.clock.pass_(-SECONDS)
    bench.renewal.replace([ROTATE], Pace(seconds=10.0, keys=10, per_minute=60))  # its monotonic clock went back, too
    bench.unsteady = False
    await bench.steps(30)
    assert bench.version("payments/card") == 1


async def test_a_clock_that_was_set_leads_to_no_storm(bench: Bench) -> None:
    """So many at once, and then one a second."""
    bench.renewal.replace([ROTATE], Pace(seconds=10.0, keys=1000, per_minute=60))
    names = [f"payments/k{number}" for number in range(25)]
    bench.create(*names, algorithm="aes-256-gcm")
    bench.custody.clock.pass_(SECONDS)
    done: list[int] = []
    for _ in range(30):
        await bench.steps(1)
        done.append(bench.renewal.rotated.total())
    assert done[0] <= 6
    assert all(later - earlier <= 1 for earlier, later in pairwise(done)), done
    assert done[-1] == len(names)
    assert {bench.version(name) for name in names} == {2}


async def test_a_step_looks_at_no_more_keys_than_its_pace_says() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    with captured() as logged:
        bench = Bench(logged, lane=lane)
        bench.create(*(f"payments/k{number}" for number in range(35)), algorithm="hmac-sha-256")
        used = bench.custody.pool.in_use
        costs: list[int] = []
        for _ in range(5):
            lane.operations.clear()
            await bench.steps(1)
            costs.append(len(lane.operations))
        assert max(costs) <= 2 + 10 * 2
        assert bench.renewal.looked == 35
        assert bench.custody.pool.in_use == used, "a look holds no locked memory"


async def test_what_is_one_keys_own_trouble_holds_no_other_up(bench: Bench) -> None:
    bench.create("payments/a", "payments/b", "payments/c")
    bench.renewal.replace([ROTATE, Rule("macs", after=DAY, rotates=True, algorithms=frozenset({"hmac-sha-256"}))], Pace(10.0, 10, 600))
    bench.create("payments/mac", algorithm="hmac-sha-256")
    bench.custody.keys.allow(Parameters(algorithms=frozenset({Algorithm.AES_256_GCM})))
    bench.custody.clock.pass_(SECONDS)
    await bench.steps(60)
    assert [bench.version(f"payments/{name}") for name in ("a", "b", "c", "mac")] == [2, 2, 2, 1]
    line = bench.logged.one("key.unrotated", level="error", key="payments/mac", rule="macs")
    assert line["code"] == "key.unsupported"
    assert bench.reading('rotations_failed_total{rule="macs"}') > 1
    assert bench.renewal.overdue == {"macs": 1}
    bench.logged.none("rotation.waits")


async def test_an_hsm_that_is_away_costs_nothing_but_time() -> None:
    lane = SteeredLane(InlineLane(SoftwareBackend(allow=True)))
    with captured() as logged:
        bench = Bench(logged, lane=lane)
        bench.create("payments/card")
        bench.custody.clock.pass_(SECONDS)
        lane.fail = lambda _operation: Unavailable("unplugged")
        await bench.steps(40)
        assert bench.logged.one("rotation.waits", code="hsm.unavailable")
        asked = len(lane.operations)
        await bench.steps(40)
        assert len(lane.operations) - asked <= 40 / PAUSE, "it asks now and then"
        lane.fail = lambda _operation: None
        await bench.steps(30)
        assert bench.version("payments/card") == 2
        assert bench.logged.one("rotation.resumed", was="hsm.unavailable")


async def test_a_conflict_is_left_to_the_next_look(bench: Bench) -> None:
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    bench.ledger.broken = [Conflict("somebody was there first")]
    await bench.steps(1)
    assert bench.version("payments/card") == 1
    await bench.steps(20)
    assert bench.version("payments/card") == 2
    bench.logged.none("key.unrotated")
    assert bench.reading('rotations_failed_total{rule="quarterly"}') == 0


async def test_other_rules_hold_at_once(bench: Bench) -> None:
    bench.create("payments/card")
    bench.create("build/release", algorithm="ed25519")
    bench.custody.clock.pass_(40 * 86_400)
    await bench.steps(3)
    assert bench.renewal.overdue == {"releases": 1}
    bench.renewal.replace([Rule("monthly", after=30 * DAY, rotates=True)], Pace(3600.0, 10, 60))
    assert bench.renewal.overdue == {}, "of a rule that is no more"
    await bench.steps(2)
    assert bench.version("payments/card") == 2
    assert bench.renewal.overdue == {"monthly": 1}, "the release key, which it does not name"
    bench.renewal.replace([], Pace())
    looked = bench.renewal.looked
    await bench.steps(30)
    assert bench.renewal.looked == looked
    assert bench.health.report().components["rotation"].state is State.OK


async def test_a_mistake_of_ours_ends_no_daemon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create("payments/card")
    bench.custody.clock.pass_(SECONDS)
    monkeypatch.setattr(bench.custody.keys.survey, "walk", lambda *_: 1 / 0)
    await bench.steps(20)
    assert bench.logged.one("rotation.waits", code="internal")
    monkeypatch.undo()
    await bench.steps(20)
    assert bench.version("payments/card") == 2


async def test_what_is_remembered_as_told_is_bounded(bench: Bench) -> None:
    bench.renewal._told.update({f"v/{number}": 1 for number in range(TOLD_MOST)})
    bench.create("build/release", algorithm="ed25519")
    bench.custody.clock.pass_(SECONDS)
    await bench.steps(2)
    assert bench.renewal.overdue_total == 1, "it is counted all the same"
    bench.logged.none("key.due")
    await bench.steps(20)
    assert bench.renewal._told == {"build/release": 1}, "of the others none is due any more"
    assert bench.logged.one("key.due", key="build/release")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 100 * 86_400)),
        st.tuples(st.just("set back"), st.integers(1, 200 * 86_400)),
        st.tuples(st.just("rotate"), st.integers(0, 2)),
        st.tuples(st.just("use"), st.integers(0, 2)),
        st.tuples(st.just("fail"), st.integers(1, 3)),
        st.tuples(st.just("look"), st.integers(1, 30)),
    ),
    max_size=25,
)


def newest(bench: Bench, name: str) -> tuple[int, int, int]:
    """Number, creation and uses of a key's newest version."""
    version = run(bench.custody.keyring.find(name)).newest
    assert version.usage is not None
    return version.number, version.created, version.usage.uses


@given(steps=STEPS)
def test_whatever_happens_no_version_is_replaced_that_was_not_due(steps: list[tuple[str, int]]) -> None:
    """Against the records: each rotation by a rule found a newest version that was old or used enough, and when all is
    well at the end nothing is due any more."""
    rules = [Rule("age", after=30 * DAY, rotates=True), Rule("much", uses=4, rotates=True)]

    async def play() -> None:
        with captured() as logged:
            bench = Bench(logged)
            monotonic = bench.custody.clock
            back = 0.0
            bench.custody.hierarchy._clock = lambda: monotonic.wall() - timedelta(seconds=back)
            bench.renewal.replace(rules, Pace(10.0, 10, 60_000))
            names = [f"payments/k{number}" for number in range(3)]
            bench.create(*names)
            for step, amount in steps:
                if step == "pass":
                    monotonic.pass_(amount)
                elif step == "set back":
                    back += amount
                elif step == "rotate":
                    bench.custody.call("key.rotate", key=names[amount])
                elif step == "use":
                    bench.custody.call("key.encrypt", key=names[amount], input=b"x")
                elif step == "fail":
                    bench.ledger.broken = [StoreError("now and then")] * amount
                else:
                    await watched(bench, names, amount)
            bench.ledger.broken = []
            await watched(bench, names, 60)
            now = bench.custody.hierarchy.now()
            for name in names:
                _, created, uses = newest(bench, name)
                assert now < created + 30 * DAY
                assert uses < 4

    async def watched(bench: Bench, names: list[str], count: int) -> None:
        for _ in range(count):
            before = {name: newest(bench, name) for name in names}
            written = len(bench.records())
            await bench.steps(1)
            now = bench.custody.hierarchy.now()
            fresh = bench.records()[written:]
            assert len({entry["key"] for entry in fresh}) == len(fresh), "twice in one look"
            for entry in fresh:
                number, created, uses = before[str(entry["key"])]
                assert entry["version"] == number + 1
                assert now >= created + 30 * DAY or uses >= 4

    trio.run(play)
