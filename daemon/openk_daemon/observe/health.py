"""How the daemon is: each component's finding, and the worst of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"  # serves, but an operator should look
    FAILED = "failed"  # some requests cannot be served
    UNKNOWN = "unknown"  # of a component only: nobody can tell, which is no trouble by itself


_ORDER = {State.OK: 0, State.DEGRADED: 1, State.FAILED: 2, State.UNKNOWN: 0}
_QUIET = frozenset({State.OK, State.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Finding:
    """`reason` is shown to clients: what is wrong and what to do, without paths or secrets; empty when ok."""

    state: State
    reason: str = ""


OK = Finding(State.OK)


@dataclass(frozen=True, slots=True)
class Report:
    status: State
    components: Mapping[str, Finding]

    def sentence(self) -> str:
        """One line for STATUS= and the log."""
        findings = self.components.items()
        bad = [f"{name} {one.state}: {one.reason}" for name, one in findings if one.state not in _QUIET]
        return "; ".join(bad) if bad else "all components ok"


Check = Callable[[], Finding]


@dataclass(slots=True)
class Health:
    """Checks are quick and never wait: they look at what their component already knows."""

    _checks: dict[str, Check] = field(default_factory=dict[str, Check])

    def add(self, component: str, check: Check) -> None:
        """Raises ValueError when the component has a check already."""
        if component in self._checks:
            raise ValueError(f"{component} has a health check already")
        self._checks[component] = check

    def report(self) -> Report:
        components = {name: _find(check) for name, check in self._checks.items()}
        worst = max((finding.state for finding in components.values()), key=_ORDER.__getitem__, default=State.OK)
        return Report(State.OK if worst in _QUIET else worst, components)


def _find(check: Check) -> Finding:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a check that breaks is itself a finding
        return Finding(State.FAILED, f"its health check failed ({type(error).__name__}); see the log")


def threshold(read: Callable[[], float], *, degraded: float, failed: float, reason: str) -> Check:
    """A check on a number that should stay low. `reason` may hold {value}."""

    def check() -> Finding:
        value = read()
        if value >= failed:
            return Finding(State.FAILED, reason.format(value=value))
        if value >= degraded:
            return Finding(State.DEGRADED, reason.format(value=value))
        return OK

    return check
