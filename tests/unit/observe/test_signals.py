"""Signals: rates and percentiles over the last ten readings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk_daemon.observe.metrics import BOUNDS, BUCKETS, Metrics, quantile
from openk_daemon.observe.signals import NAMES, Signals

KNOWN = {
    name: 0.0
    for name in NAMES
    if name.partition("_")[0] not in {"requests", "refused", "failed", "internal", "request", "cpu"}
    and name not in {"commit_p99_seconds", "hsm_p99_seconds", "log_dropped_per_second", "hsm_restarts_hour"}
}


def test_rates_are_of_the_last_ten_seconds() -> None:
    metrics, parts = Metrics(), {**KNOWN, "cpu_seconds": 3.0, "log_dropped": 0.0}
    signals = Signals(metrics, lambda: parts)
    first = signals.take(100.0)
    assert "requests_per_second" not in first
    for second in range(1, 31):
        for _ in range(20 if second <= 20 else 10):
            metrics.request("key.sign", "ok", 0.001)
        metrics.request("key.sign", "policy.denied", 0.1)
        metrics.request("key.sign", "hsm.unavailable", 0.1)
        metrics.request("key.sign", "internal", 0.1)
        parts["cpu_seconds"] += 0.25
        parts["log_dropped"] += 2
        parts["hsm_restarts"] += second == 30
        reading = signals.take(100.0 + second)
    assert reading["requests_per_second"] == pytest.approx(13)
    assert reading["refused_per_second"] == pytest.approx(1)
    assert reading["failed_per_second"] == pytest.approx(2)
    assert reading["failed_share"] == pytest.approx(2 / 13)
    assert reading["internal_per_second"] == pytest.approx(1)
    assert reading["cpu_share"] == pytest.approx(0.25)
    assert reading["log_dropped_per_second"] == pytest.approx(2)
    assert reading["hsm_restarts"] == 1
    assert reading["request_p50_seconds"] == pytest.approx(2**6 / 65536 * 2)
    assert reading["request_p99_seconds"] == pytest.approx(0.125)
    assert set(NAMES) - set(reading) == {"hsm_restarts_hour"}


@given(st.lists(st.floats(1e-6, 15.0), min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_bound_of_its_bucket(times: list[float], share: float) -> None:
    metrics = Metrics()
    for seconds in times:
        metrics.commit(1, seconds)
    found = quantile(metrics.commit_seconds.counts, share)
    assert found in BOUNDS
    assert sum(seconds < found for seconds in times) >= share * len(times)
    lower = found / 2
    assert sum(seconds < lower for seconds in times) < share * len(times) or found == BOUNDS[0]


def test_nothing_counted_is_nothing_and_too_long_is_twice_the_longest() -> None:
    assert quantile([0] * (BUCKETS + 1), 0.99) == 0
    assert quantile([0] * BUCKETS + [1], 0.5) == 32
