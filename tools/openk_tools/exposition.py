"""Reads what `system.metrics` answers, as far as `openk top` needs it: names, labels, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

_LINE: Final = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


class Exposition:
    """One reading of the metrics."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in _samples(text):
            self._samples.setdefault(sample.name, []).append(sample)

    def all(self, name: str) -> list[Sample]:
        return self._samples.get(name, [])

    def value(self, name: str, **labels: str) -> float:
        """The sum over all with these labels; 0.0 where there is none."""
        return sum(one.value for one in self.all(name) if all(one.labels.get(key) == labels[key] for key in labels))

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Upper bound to how many were below it, of the histogram with these labels."""
        found: dict[float, float] = {}
        for one in self.all(f"{name}_bucket"):
            if all(one.labels.get(key) == labels[key] for key in labels):
                bound = inf if one.labels["le"] == "+Inf" else float(one.labels["le"])
                found[bound] = found.get(bound, 0.0) + one.value
        return found


def _samples(text: str) -> Iterator[Sample]:
    for line in text.splitlines():
        found = None if line.startswith("#") else _LINE.fullmatch(line)
        if found is not None:
            try:
                value = float(found[3])
            except ValueError:
                continue
            yield Sample(found[1], dict(_LABEL.findall(found[2] or "")), value)


def quantile(now: Mapping[float, float], before: Mapping[float, float], share: float) -> float | None:
    """Below which bound that share of what came between two readings was; None where nothing came."""
    counts = {bound: now[bound] - before.get(bound, 0.0) for bound in sorted(now)}
    total = max(counts.values(), default=0.0)
    if total <= 0:
        return None
    return next(bound for bound, count in counts.items() if count >= share * total)
