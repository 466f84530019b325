"""The Prometheus text exposition format 0.0.4, written by prometheus-client.

It is imported when metrics are first read: it costs 75 ms and 9 MB, which a daemon that nobody scrapes, and the start
of every daemon, can do without (docs/adr/0005-dependencies.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """`suffix` is `_bucket`, `_sum`, `_count` in a histogram, else empty."""

    suffix: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    summary: str
    kind: Kind
    samples: Sequence[Sample]
    prefix: str = "openk_"


class _Snapshot:
    """What `generate_latest` asks of a registry: families that are complete already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import Metric  # noqa: PLC0415 - see the head of this file

        for family in self._families:
            name = family.prefix + family.name
            told = Metric(name.removesuffix("_total"), family.summary, str(family.kind))
            for sample in family.samples:
                told.add_sample(name + sample.suffix, dict(sample.labels), sample.value)
            yield told


def render(families: Iterable[Family]) -> str:
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - see the head of this file

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(families))
    return generate_latest(registry).decode()
