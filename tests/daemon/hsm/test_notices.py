"""Notices of devices: recorded once each, in order, with the audit entry in the same unit; troubles do not stop them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence

import pytest

from openk_daemon.hierarchy.records import HSM_NOTICE
from openk_daemon.notices import Notices
from openk_daemon.observe.health import Health, State
from openk_daemon.observe.log import Category, Log, Sink
from openk_daemon.observe.metrics import Metrics
from openk_daemon.refusal import Refusal
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Full, StoreError, Unit, Write
from openk_hsm.errors import HsmError, Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending, failed, resolved
from openk_hsm.seam import Notice
from openk_hsm.software import SoftwareBackend
from tests.support.custody import Custody, records
from tests.support.lanes import SteeredLane

ALARM = Notice(1000, 1000, alarm=True, text='somebody else used "the device"')
START = Notice(1001, 1001, alarm=False, text="the device was started again")


class Telling(SteeredLane):
    """A lane whose device has these things to tell."""

    told: Sequence[Notice] = ()
    trouble: HsmError | None = None

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        if self.trouble is not None:
            return failed(self.trouble)
        return resolved([notice for notice in self.told if notice.number > after])


class Bench:
    def __init__(self) -> None:
        self.lane = Telling(InlineLane(SoftwareBackend(allow=True)))
        self.custody = Custody(lane=self.lane)
        self.entries: list[dict[str, object]] = []
        self.refuse: StoreError | None = None
        self.log = os.open(os.devnull, os.O_WRONLY)

    def started(self) -> Notices:
        hierarchy, store = self.custody.hierarchy, self.custody.store
        assert isinstance(store, MemoryStore)

        async def commit(entry: str, write: Write) -> None:
            if self.refuse is not None:
                raise self.refuse
            await store.commit(Unit((write,), entry.encode()))
            self.entries.append(json.loads(entry))

        lanes = {"main": self.lane}
        return Notices(lanes, store, hierarchy.sealing, hierarchy.root, commit, Log(Sink(self.log), Category.HSM, {}))


@pytest.fixture
def bench(leases: None) -> Iterator[Bench]:
    made = Bench()
    yield made
    os.close(made.log)


async def test_each_is_recorded_once_and_over_restarts(bench: Bench) -> None:
    notices = bench.started()
    assert await notices.ask("main", bench.lane) == 0
    bench.lane.told = (ALARM, START)
    assert await notices.ask("main", bench.lane) == 2
    assert await notices.ask("main", bench.lane) == 0
    again = bench.started()
    assert await again.ask("main", bench.lane) == 0
    assert [entry["text"] for entry in bench.entries] == [ALARM.text, START.text]
    assert bench.entries[0] == {"event": "hsm.notice", "hsm": "main", "at": 1000, "alarm": True, "text": ALARM.text}
    assert (notices.alarms, again.alarms) == ({"main": 1}, {"main": 0})


async def test_what_could_not_be_recorded_is_recorded_later(bench: Bench) -> None:
    notices = bench.started()
    bench.lane.told = (ALARM,)
    bench.refuse = Full("full")
    with pytest.raises(StoreError):
        await notices.ask("main", bench.lane)
    assert notices.alarms == {"main": 0}
    bench.refuse = None
    assert await notices.ask("main", bench.lane) == 1


async def test_a_device_in_trouble_is_asked_again(bench: Bench) -> None:
    notices = bench.started()
    bench.lane.told, bench.lane.trouble = (ALARM,), Unavailable("gone")
    with pytest.raises(Unavailable):
        await notices.ask("main", bench.lane)
    bench.lane.trouble = None
    assert await notices.ask("main", bench.lane) == 1


async def test_a_count_that_somebody_changed_is_damage(bench: Bench) -> None:
    """Set forward it would hide alarms."""
    notices = bench.started()
    bench.lane.told = (ALARM,)
    await notices.ask("main", bench.lane)
    store = bench.custody.store
    assert isinstance(store, MemoryStore)
    kept = records(store, HSM_NOTICE)
    (id_,) = kept
    kept[id_] = type(kept[id_])(HSM_NOTICE, id_, 1, kept[id_].body[:-1] + b"?")
    with pytest.raises(Refusal) as refused:
        await notices.ask("main", bench.lane)
    assert refused.value.code.name == "store.damaged"


async def test_alarms_are_counted_and_degrade_health(bench: Bench) -> None:
    notices, metrics, health = bench.started(), Metrics(), Health()
    notices.watch(metrics, health)
    assert health.report().status is State.OK
    bench.lane.told = (START,)
    await notices.ask("main", bench.lane)
    assert health.report().status is State.OK
    bench.lane.told = (START, Notice(1002, 1002, alarm=True, text="somebody"))
    await notices.ask("main", bench.lane)
    report = health.report()
    assert report.status is State.DEGRADED
    (line,) = [line for line in metrics.expose().splitlines() if line.startswith("openk_hsm_alarms_total{")]
    assert line.startswith('openk_hsm_alarms_total{lane="main"}')
    assert float(line.split()[-1]) == 1
