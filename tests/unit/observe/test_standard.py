"""The numbers and findings every openkd has; and what `logging` is told."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openk_daemon.observe.bridge import install
from openk_daemon.observe.health import Health, State
from openk_daemon.observe.log import Category, Level, Log, Sink
from openk_daemon.observe.metrics import Metrics
from openk_daemon.observe.standard import AuditReading, Sources, check_standard, watch_standard


@dataclass(frozen=True)
class Lane:
    name: str = "main"
    state: str = "up"
    workers: int = 2
    queued: int = 3
    in_flight: int = 4
    restarts: int = 5
    replayed: int = 6
    quarantined: int = 0
    timed_out: int = 0
    busy: int = 0
    rejected: int = 0
    trips: int = 1
    refusals: int = 0
    batches: int = 10
    operations: int = 40
    loaded: int = 3


@dataclass(frozen=True)
class Memory:
    capacity: int = 1000
    locked: int = 800
    in_use: int = 100
    peak: int = 500
    refusals: int = 1
    waits: int = 2


class Full(Exception):
    code = "store.full"


@dataclass
class World:
    lanes: list[Lane] = field(default_factory=lambda: [Lane()])
    memory: Memory = field(default_factory=Memory)
    audit: AuditReading = field(default_factory=lambda: AuditReading(100, 90, None, 2.5))
    fault: Exception | None = None

    def sources(self) -> Sources:
        return Sources(
            lambda: self.lanes, lambda: self.memory, lambda: self.audit, lambda: 7, lambda: self.fault, lambda: 8, lambda: 9,
            lambda: 10,
        )  # fmt: skip


def test_every_number_is_exposed() -> None:
    metrics = Metrics()
    watch_standard(metrics, World().sources())
    numbers = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics.expose())
        for sample in family.samples
        if not sample.labels or "lane" in sample.labels
    }
    assert {name: numbers[f"openk_{name}"] for name in (
        "hsm_up", "hsm_workers", "hsm_queued", "hsm_in_flight", "hsm_restarts_total", "hsm_replayed_total",
        "locked_memory_capacity_bytes", "locked_memory_bytes", "locked_memory_peak_bytes", "locked_memory_refusals_total",
        "locked_memory_waits_total", "audit_entries", "audit_unsigned", "audit_refusing", "store_queued", "policy_decisions",
        "log_dropped_total", "hsm_batches_total", "hsm_operations_total", "hsm_loaded_keys", "hsm_breaker_open", "policy_evaluated_total",
        "policy_remembered_total", "audit_lag_seconds",
    )} == {
        "hsm_up": 1, "hsm_workers": 2, "hsm_queued": 3, "hsm_in_flight": 4, "hsm_restarts_total": 5, "hsm_replayed_total": 6,
        "locked_memory_capacity_bytes": 1000, "locked_memory_bytes": 100, "locked_memory_peak_bytes": 500,
        "locked_memory_refusals_total": 1, "locked_memory_waits_total": 2, "audit_entries": 100, "audit_unsigned": 10,
        "audit_refusing": 0, "store_queued": 7, "policy_decisions": 8, "log_dropped_total": 9,
        "hsm_batches_total": 10, "hsm_operations_total": 40, "hsm_loaded_keys": 3, "hsm_breaker_open": 0, "policy_evaluated_total": 0,
        "policy_remembered_total": 0, "audit_lag_seconds": 2.5,
    }  # fmt: skip


def lanes(*states: str) -> Callable[[World], None]:
    return lambda world: setattr(world, "lanes", [Lane(name=f"l{n}", state=state) for n, state in enumerate(states)])


@pytest.mark.parametrize(
    ("change", "component", "state", "words"),
    [
        (lambda _: None, "hsm", State.OK, ""),
        (lanes("up", "down"), "hsm", State.DEGRADED, "lane l1 is down"),
        (lanes("restarting"), "hsm", State.DEGRADED, "lane l0 is restarting"),
        (lanes("down", "latched"), "hsm", State.FAILED, "lane l0 is down, lane l1 is latched"),
        (lambda world: setattr(world, "fault", Full("disk")), "store", State.FAILED, "commits fail (store.full); see the log"),
        (lambda world: setattr(world, "audit", AuditReading(50, 9, None)), "audit", State.DEGRADED, "41 entries wait for a signature of the HSM"),
        (lambda world: setattr(world, "audit", AuditReading(50, 10, None)), "audit", State.OK, ""),
        (lambda world: setattr(world, "audit", AuditReading(5, 5, "no space")), "audit", State.FAILED, "no space"),
        (lambda world: setattr(world, "memory", replace(Memory(), in_use=801)), "memory", State.DEGRADED, "801 of 1000 bytes of locked memory are in use"),
    ],
)  # fmt: skip
def test_findings(change: Callable[[World], None], component: str, state: State, words: str) -> None:
    world, health = World(), Health()
    check_standard(health, world.sources())
    change(world)
    report = health.report()
    assert (report.components[component].state, report.components[component].reason) == (state, words)
    assert report.status is state


@pytest.fixture
def told() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """Lines that `logging` caused, with pytest's own handlers put back afterwards."""
    root = logging.getLogger()
    before = root.handlers, root.level, logging.raiseExceptions
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    install(Log(Sink(writer), Category.LIFECYCLE, dict.fromkeys(Category, Level.DEBUG)))
    try:
        yield lambda: [json.loads(line) for line in os.read(reader, 65536).decode().splitlines()]
    finally:
        root.handlers, logging.raiseExceptions = before[0], before[2]
        root.setLevel(before[1])
        os.close(reader)
        os.close(writer)


def test_logging_is_bridged_and_redacted(told: Callable[[], list[dict[str, object]]]) -> None:
    logging.getLogger("openk_daemon.store.sqlite").warning("%s is %d old, holds %r", "it", 3, b"secret")
    try:
        raise ValueError(b"secret")
    except ValueError:
        logging.getLogger("somebody.else").exception("failed")
    logging.getLogger("openk_daemon.audit.ledger").info("%d and", memoryview(b"secret"))
    logging.getLogger("x").debug("below the level")
    first, second, third = told()
    assert (first["category"], first["level"], first["text"]) == ("storage", "warning", "it is 3 old, holds '<bytes of 6 bytes>'")
    assert str(first["event"]).startswith("store.sqlite:")
    assert (second["category"], second["level"], second["text"]) == ("lifecycle", "error", "failed")
    assert "secret" not in json.dumps(second)
    assert third["text"] == "%d and"
