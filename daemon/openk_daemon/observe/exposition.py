"""What Prometheus reads: the text format 0.0.4, and OpenMetrics 1.0.0 with exemplars for whoever accepts it.

Written here, and not by prometheus-client: that takes 13 microseconds a sample and 100 ms to be imported, both of which
the clients would wait for.  It is the oracle of the tests instead (docs/adr/0005-dependencies.md).

    # HELP openk_request_seconds From a request's last byte to its reply.
    # TYPE openk_request_seconds histogram
    openk_request_seconds_bucket{method="key.sign",le="0.0078125"} 17 # {request="1f0c4a2e-9b"} 0.0061 1785492000.123
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_END: Final = "# EOF\n"

Labels = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One request that fell into a bucket: its id, its seconds, and when that was (Unix time)."""

    request: str
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Sample:
    """`suffix` is `_bucket`, `_sum`, `_count` in a histogram, else empty."""

    suffix: str
    labels: Labels
    value: float
    exemplar: Exemplar | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """`name` without prefix; a counter's ends in `_total`."""

    name: str
    summary: str
    kind: Kind
    samples: Sequence[Sample]
    prefix: str = "openk_"


def render(families: Iterable[Family], *, openmetrics: bool = False) -> str:
    """The whole exposition."""
    return "".join(render_parts(families, openmetrics=openmetrics))


def render_parts(families: Iterable[Family], *, openmetrics: bool = False) -> Iterator[str]:
    """The same family by family, so that whoever serves others can do so in between."""
    for family in families:
        yield _family(family, openmetrics)
    if openmetrics:
        yield _END


def _family(family: Family, openmetrics: bool) -> str:  # noqa: FBT001 - one of two formats
    name = family.prefix + family.name
    told = name.removesuffix("_total") if openmetrics else name  # OpenMetrics names a counter without its suffix
    lines = [f"# HELP {told} {_escape(family.summary)}\n# TYPE {told} {family.kind.value}\n"]
    for sample in family.samples:
        labels = ",".join([f'{label}="{_quote(value)}"' for label, value in sample.labels])
        lines.append(
            f"{name}{sample.suffix}{{{labels}}} {_number(sample.value)}"
            if labels
            else f"{name}{sample.suffix} {_number(sample.value)}"
        )
        found = sample.exemplar
        if openmetrics and found is not None:
            lines.append(f' # {{request="{_quote(found.request)}"}} {found.value:.9f} {found.at:.3f}')
        lines.append("\n")
    return "".join(lines)


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if value != value else repr(float(value))  # noqa: PLR0124 - what NaN is


def _quote(text: str) -> str:
    if '"' not in text and "\\" not in text and "\n" not in text:
        return text
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
