"""The exposition, judged by Prometheus' own parser; the cost on the request path; health."""

import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from openk_daemon.observe.exposition import Family, Kind, Sample, render
from openk_daemon.observe.health import OK, Finding, Health, State, threshold
from openk_daemon.observe.metrics import BOUNDS, STAGES, Metrics, measure_request


def parse(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    raise AssertionError(f"no sample {name} {labels}")


def test_requests_by_method_and_code() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.request("key.sign", "ok", 0.0001)
    metrics.request("key.sign", "policy.denied", 0.0002)
    text = metrics.expose()
    assert value(text, "openk_requests_total", method="key.sign", code="ok") == 3
    assert value(text, "openk_requests_total", method="key.sign", code="policy.denied") == 1
    assert value(text, "openk_request_seconds_count", **{"class": "key", "method": "key.sign"}) == 4
    assert value(text, "openk_request_seconds_sum", **{"class": "key", "method": "key.sign"}) == pytest.approx(0.0005)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_buckets_hold_what_is_below_their_bound(times: list[float]) -> None:
    metrics = Metrics()
    for seconds in times:
        metrics.request("system.ping", "ok", seconds)
    text = metrics.expose()
    for bound in BOUNDS:
        counted = value(text, "openk_request_seconds_bucket", **{"class": "system", "method": "system.ping", "le": repr(bound)})
        assert counted == sum(seconds < bound for seconds in times)
    assert value(text, "openk_request_seconds_bucket", **{"class": "system", "method": "system.ping", "le": "+Inf"}) == len(times)


def test_commit_sizes() -> None:
    metrics = Metrics()
    for units in (1, 2, 3, 64, 5000):
        metrics.commit(units, 0.001)
    text = metrics.expose()
    assert [value(text, "openk_commit_units_bucket", le=le) for le in ("1.0", "2.0", "4.0", "64.0", "1024.0", "+Inf")] == [1, 2, 3, 4, 4, 5]
    assert value(text, "openk_commit_units_sum") == 5070


def test_connections_and_process() -> None:
    metrics = Metrics()
    metrics.connections_opened, metrics.connections_closed, metrics.bytes_in = 5, 2, 1000
    text = metrics.expose()
    assert value(text, "openk_connections") == 3
    assert value(text, "openk_received_bytes_total") == 1000
    assert value(text, "process_resident_memory_bytes") > 1e6


def test_watched_numbers_and_one_that_breaks() -> None:
    metrics = Metrics()
    metrics.watch("hsm_queued", "Waiting.", lambda: [((("lane", "main"),), 4), ((("lane", "b"),), 0)])
    metrics.watch("broken", "Breaks.", lambda: 1 / 0)
    metrics.watch("restarts_total", "Restarts.", lambda: 2, Kind.COUNTER)
    text = metrics.expose()
    assert value(text, "openk_hsm_queued", lane="main") == 4
    assert value(text, "openk_restarts_total") == 2
    assert "broken" not in text
    with pytest.raises(ValueError, match="watched already"):
        metrics.watch("broken", "", lambda: 1)
    with pytest.raises(ValueError, match="_total"):
        metrics.watch("x", "", lambda: 1, Kind.COUNTER)


# Line breaks other than \n are left out: the parser itself splits lines at them.
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from('\\"\n n{},= '))


@given(TEXT, TEXT, st.floats(allow_nan=True))
@example('\\n"\\', "\\n\n", 0.1)
def test_any_label_text_and_number_survive(label: str, summary: str, number: float) -> None:
    text = render([Family("x", summary, Kind.GAUGE, [Sample("", (("l", label),), number)])])
    (sample,) = parse(text)["openk_x"].samples
    assert sample.labels == {"l": label}
    assert sample.value == number or (math.isnan(sample.value) and math.isnan(number))


def test_openmetrics_has_the_id_of_a_request_in_its_bucket() -> None:
    metrics = Metrics()
    for number in range(40):
        metrics.request("key.sign", "ok", 0.0001, f"1f-{number:x}")
    metrics.request("key.sign", "ok", 3.0, "1f-slow")
    metrics.request("key.sign", "ok", 99.0)
    families = {family.name: family for family in open_families(metrics.expose(openmetrics=True))}
    buckets = [sample for sample in families["openk_request_seconds"].samples if sample.exemplar]
    assert [(sample.labels["le"], sample.exemplar.labels) for sample in buckets] == [
        ("0.0001220703125", {"request": "1f-20"}),
        ("4.0", {"request": "1f-slow"}),
    ]
    assert [sample.exemplar.value for sample in buckets] == [0.0001, 3.0]
    assert families["openk_requests"].type == "counter"
    assert families["openk_requests"].samples[0].name == "openk_requests_total"


def test_stages_of_a_request() -> None:
    metrics = Metrics()
    metrics.staged(1.0, 1.001, 1.003, 1.007, 1.015)
    metrics.staged(1.0, 1.001, 0.0, 1.003, 1.007)
    text = metrics.expose()
    assert {stage: value(text, "openk_stage_seconds_count", stage=stage) for stage in STAGES} == {
        "policy": 2, "queue": 1, "hsm": 1, "work": 1, "audit": 2,
    }  # fmt: skip
    sums = [value(text, "openk_stage_seconds_sum", stage=stage) for stage in STAGES]
    assert sums == pytest.approx([0.002, 0.002, 0.004, 0.002, 0.012])


def test_every_family_is_named_once_and_explained() -> None:
    text = Metrics().expose()
    named = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(named) == len(set(named))
    assert all(f"# HELP {name} " in text for name in named)


def test_a_request_costs_little() -> None:
    """About 0.5 microseconds, and the exposition of all families some thousand times that; compared within one run, for
    machines are busy or slow."""
    metrics = Metrics()
    request = min(measure_request(metrics, 5_000) for _ in range(5))
    begin = time.perf_counter()
    metrics.expose()
    assert request < 1e6 * (time.perf_counter() - begin) / 50


def test_health_is_the_worst_of_its_components() -> None:
    health = Health()
    assert health.report().status is State.OK
    health.add("store", lambda: OK)
    health.add("hsm", lambda: Finding(State.DEGRADED, "one worker of two"))
    report = health.report()
    assert (report.status, report.sentence()) == (State.DEGRADED, "hsm degraded: one worker of two")
    health.add("audit", lambda: Finding(1 / 0))  # type: ignore[arg-type]  # never made
    assert health.report().status is State.FAILED
    assert "ZeroDivisionError" in health.report().components["audit"].reason
    with pytest.raises(ValueError, match="already"):
        health.add("audit", lambda: OK)


def test_thresholds() -> None:
    level = [0.0]
    check = threshold(lambda: level[0], degraded=10, failed=20, reason="lag {value:.0f} s")
    assert check() == OK
    level[0] = 10
    assert check() == Finding(State.DEGRADED, "lag 10 s")
    level[0] = 20
    assert check() == Finding(State.FAILED, "lag 20 s")
