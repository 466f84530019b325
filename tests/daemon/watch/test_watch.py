"""What watches: round trips that hang, fail and are answered again; disk, clock and policies; who waits for an alert."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isnan
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.call import Outcome
from openk_daemon.config_values import Config
from openk_daemon.config_watch import Alerts as AlertConfig
from openk_daemon.config_watch import Health as HealthConfig
from openk_daemon.config_watch import Threshold
from openk_daemon.handlers.watch import WatchHandlers
from openk_daemon.hsms import Device
from openk_daemon.observe.alerts import Alerts, Rule, Severity
from openk_daemon.observe.health import OK, Finding, Health, State
from openk_daemon.observe.log import Category, Level, Log, Sink
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.notify import ServiceManager
from openk_daemon.observe.signals import Signals
from openk_daemon.observe.standard import Sources
from openk_daemon.refusal import Refusal
from openk_daemon.thresholds import alert_rules
from openk_daemon.watch import probe as probing
from openk_daemon.watch import surroundings
from openk_daemon.watch.probe import Probe, Probes
from openk_daemon.watch.surroundings import Disk, PolicyAge, WallClock
from openk_daemon.watch.watcher import Watcher
from openk_daemon.watch.watching import Parts, Posts, Voices, Watching
from openk_hsm.errors import TimedOut
from openk_hsm.inline import InlineLane
from openk_hsm.lane_health import LaneState
from openk_hsm.pending import Pending, drive
from openk_hsm.seam import Generated, KeySpec, TokenInfo, Wrapper
from openk_hsm.software import SoftwareBackend
from tests.support.custody import Custody, make_call, run
from tests.support.lanes import SteeredLane

HEAT = Rule("hot", "heat", Severity.PAGE, 10, 5, 0, "it is {value:g} hot")


class Steered(SteeredLane):
    """A lane that can be told not to answer."""

    waiting: list[Pending[Generated]] | None = None
    state = LaneState.UP
    stalled = False

    @property
    def token(self) -> TokenInfo | None:
        return self.info().result()

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        if self.waiting is None:
            return super().generate(spec, wrapper, context)
        pending: Pending[Generated] = Pending()
        self.waiting.append(pending)
        return pending


class Time:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(probing, "monotonic", time)
    return time


class Bench:
    def __init__(self, tmp_path: Path, name: str = "main") -> None:
        self.lane = Steered(InlineLane(SoftwareBackend(allow=True)))
        custody = Custody(lane=self.lane)
        self.log_file = tmp_path / "log"
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT, 0o600)
        self.log = Log(Sink(descriptor), Category.HSM, dict.fromkeys(Category, Level.INFO))
        handles = custody.hierarchy.handle
        device = Device(name, self.lane, "", 1)
        self.probe = Probe(device, self.lane, lambda name: lambda spec, source: handles(spec, source, name), self.log)
        self.probes = Probes([self.probe], 10, 2)

    @property
    def found(self) -> Finding:
        return self.probes.finding()


@pytest.fixture
def bench(tmp_path: Path, time: Time) -> Bench:
    return Bench(tmp_path)


def test_a_round_trip_that_is_answered(bench: Bench) -> None:
    assert bench.found == OK
    bench.probe.start()
    assert bench.found == OK
    assert bench.probes.failures() == [((("lane", "main"),), 0)]


def test_one_that_is_not_answered_is_told_of_while_it_lasts_and_no_other_is_sent(bench: Bench, time: Time) -> None:
    bench.lane.waiting = []
    bench.probe.start()
    time.now += 1.5
    bench.probe.start()
    assert len(bench.lane.waiting) == 1
    assert bench.found == OK
    time.now += 1.5
    assert bench.found == Finding(State.FAILED, "main has not answered a round trip for 3 s")
    assert (bench.probes.slowest, bench.probes.times()) == (3.0, [((("lane", "main"),), 3.0)])
    [pending] = bench.lane.waiting
    pending.fail(TimedOut("x"))
    assert bench.found == Finding(State.FAILED, "main: its round trip ended with hsm.timeout")
    assert "hsm.probe.failed" in bench.log_file.read_text()
    bench.lane.waiting = None
    bench.probe.start()
    assert bench.found == OK
    assert "hsm.probe.right" in bench.log_file.read_text()


def test_one_of_two_that_fails_is_degraded(bench: Bench, tmp_path: Path, time: Time) -> None:
    other = Bench(tmp_path, "other")
    both = Probes([bench.probe, other.probe], 10, 2)
    other.lane.stalled = True
    assert both.finding() == Finding(State.DEGRADED, "other lets operations wait: no worker of it answers")
    bench.lane.state = LaneState.DOWN
    assert both.finding().state is State.FAILED
    bench.lane.waiting = []
    bench.probe.start()
    assert bench.lane.waiting == []  # nobody to ask


def test_an_answer_that_is_wrong_is_told(bench: Bench) -> None:
    bench.lane.waiting = []
    bench.probe.start()
    bench.lane.waiting[0].resolve(Generated(None, None))
    assert bench.found == Finding(State.FAILED, "main: the HSM gave no wrapped key")


# --- disk, clock, policies ---


async def test_the_disk_is_asked_and_its_answer_judged(tmp_path: Path) -> None:
    disk = Disk(tmp_path, tmp_path, 0.0)
    assert (isnan(disk.free_share), disk.finding()) == (True, OK)
    await disk.look()
    assert 0 < disk.free_share <= 1
    assert disk.finding() == OK
    low = Disk(tmp_path, tmp_path, 1.0)
    await low.look()
    assert low.finding().state is State.DEGRADED
    gone = Disk(tmp_path / "none", tmp_path, 0.0)
    await gone.look()
    assert "cannot be asked: No such file" in gone.finding().reason


async def test_a_disk_that_hangs_holds_nobody_and_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    disk = Disk(tmp_path, tmp_path, 0.0)
    monkeypatch.setattr(surroundings, "LIMIT", 0.05)
    monkeypatch.setattr(disk, "_ask", lambda: os.read(reader, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.run)
        await trio.sleep(0.15)
        assert "has not answered for" in disk.finding().reason
        nursery.cancel_scope.cancel()
    os.write(writer, b"x")
    os.close(writer)


@given(st.lists(st.floats(-5, 5), max_size=20))
def test_a_clock_that_is_set_is_noticed_and_one_that_is_adjusted_is_not(steps: list[float]) -> None:
    steady, wall = [0.0], [1_000.0]
    clock = WallClock(2.0, lambda: wall[0], lambda: steady[0])
    for step in steps:
        steady[0] += 1
        wall[0] += 1 + step
        clock.look()
    told = [abs(step) for step in steps if abs(step) > surroundings.NOTICED]
    assert clock.step == pytest.approx(max(told, default=0.0), abs=1e-6)
    assert (clock.finding().state is State.DEGRADED) == (clock.step >= 2.0)
    steady[0] += surroundings.REMEMBERED + 1
    wall[0] += surroundings.REMEMBERED + 1
    clock.look()
    assert clock.finding() == OK


async def test_policies_that_changed_since_they_were_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("")
    os.utime(tmp_path / "a.cedar", (1000, 1000))
    disk, epoch = Disk(tmp_path, tmp_path, 0.0), [1]
    age = PolicyAge(disk, surroundings.newest(tmp_path), 30, lambda: epoch[0])
    await disk.look()
    assert age.finding().state is State.DEGRADED  # of 1970
    (tmp_path / "a.cedar").write_text("x")
    await disk.look()
    assert age.finding() == Finding(
        State.OK, "the policy files have changed since they were loaded: openk policy reload"
    )
    epoch[0] += 1
    assert age.finding() == OK
    assert age.age < 60


# --- watcher and handlers ---


def watcher_of(values: dict[str, float], tmp_path: Path) -> Watcher:
    log = Log(Sink(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)), Category.LIFECYCLE, {})
    known = {"hsm_restarts": 0.0, "cpu_seconds": 0.0, "log_dropped": 0.0}
    return Watcher(Signals(Metrics(), lambda: {**known, **values}), Alerts([HEAT], clear_seconds=0), log)


def test_history_gets_every_tenth_reading(tmp_path: Path) -> None:
    values = {"health": 0.0}
    watcher = watcher_of(values, tmp_path)
    for second in range(35):
        values["health"] = second
        watcher.tick(100.0 + second, 5_000.0 + second)
    assert list(watcher.history.hour("health").values) == [0, 10, 20, 30]
    assert watcher.ended_at == 5_030


def test_what_an_alert_does_is_an_event(tmp_path: Path) -> None:
    values = {"heat": 0.0}
    watcher = watcher_of(values, tmp_path)
    answers: list[Outcome | None] = []

    def ask(after: str | None, wait: int) -> None:
        given: dict[str, str | int] = {"wait": wait} if after is None else {"after": after, "wait": wait}
        call = make_call("system.events", None, given)  # type: ignore[arg-type]
        drive(WatchHandlers(watcher, watcher.events).events(call), lambda outcome, _: answers.append(outcome))

    ask(None, 30)
    watcher.tick(probing_now(), 1.0)
    assert answers == []
    values["heat"] = 11.0
    watcher.tick(probing_now(), 2.0)
    [outcome] = answers
    assert outcome is not None
    [answer] = outcome.results
    assert not isinstance(answer, Refusal)
    event = answer["events"][0]  # type: ignore[index,call-overload]
    assert (event["kind"], event["subject"], event["severity"]) == ("alert.raised", "hot", "page")
    assert event["value"] == 11_000_000
    ask(watcher.events.cursor, 30)
    watcher.tick(probing_now() + 31, 3.0)
    assert len(answers) == 2, "its time was over"
    with pytest.raises(Refusal, match="no cursor of this daemon"):
        run(WatchHandlers(watcher, watcher.events).events(make_call("system.events", None, {"after": "x"})))
    assert '"event": "alert.raised"' in (tmp_path / "log").read_text()


def probing_now() -> float:
    import time as clock  # noqa: PLC0415 - the fixture's name is in the way

    return clock.monotonic()


def test_handlers_tell_in_millionths(tmp_path: Path) -> None:
    values = {"heat": 11.0, "cpu_share": 0.25, "disk_free_share": float("nan")}
    watcher = watcher_of(values, tmp_path)
    watcher.tick(100.0, 7.0)
    handlers = WatchHandlers(watcher, watcher.events)
    [answer] = run(
        handlers.history(make_call("system.history", None, {"signal": "disk_free_share", "span": "week"}))
    ).results
    assert not isinstance(answer, Refusal)
    assert (answer["seconds"], answer["end"]) == (300, 7)
    [answer] = run(handlers.alerts(make_call("system.alerts", None, {}))).results
    assert not isinstance(answer, Refusal)
    assert answer["alerts"][0]["value"] == 11_000_000  # type: ignore[index,call-overload]
    assert answer["alerts"][0]["text"] == "it is 11 hot"  # type: ignore[index,call-overload]
    assert answer["cursor"] == watcher.events.cursor
    with pytest.raises(Refusal, match="no signal 'x'"):
        run(handlers.history(make_call("system.history", None, {"signal": "x"})))


@pytest.mark.parametrize(
    ("config", "check"),
    [
        (AlertConfig(), lambda rules: rules["disk_low"].raise_at == 0.3),
        (AlertConfig(disk_low=Threshold(raise_at=0.5)), lambda rules: rules["disk_low"].raise_at == 0.5),
        (AlertConfig(disk_low=Threshold(enabled=False)), lambda rules: "disk_low" not in rules),
        (AlertConfig(slow=Threshold(for_seconds=1)), lambda rules: rules["slow"].for_seconds == 1),
    ],
)
def test_rules_as_configured(config: AlertConfig, check: Callable[[dict[str, Rule]], bool]) -> None:
    assert check(
        {rule.name: rule for rule in alert_rules(Config(alerts=config, health=HealthConfig(disk_free_share=0.3)))}
    )


async def test_what_breaks_while_looking_is_told_and_stops_nothing(bench: Bench, tmp_path: Path) -> None:
    def broken() -> int:
        raise ZeroDivisionError

    read = Sources(list, broken, broken, broken, lambda: None, broken, broken)  # type: ignore[arg-type]
    parts = Parts(broken, broken, broken, lambda: False, broken, lambda: 1, 1, broken, lambda: OK)
    disk = Disk(tmp_path, tmp_path, 0.0)
    posts = Posts(bench.probes, disk, WallClock(2.0), PolicyAge(disk, 0.0, 0.0, lambda: 1))
    watching = Watching(Metrics(), Health(), read, parts, posts, Voices(Alerts([HEAT]), bench.log, ServiceManager({})))
    watching.look()
    assert '"event": "watch.failed"' in bench.log_file.read_text()
