"""The values of authorization. Pure: no I/O, no trio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from openk_daemon.identity.caller import Caller


@dataclass(frozen=True, slots=True)
class Resource:
    """`kind` is a Cedar entity type ("System", "Vault", "Key", "Secret"); `name` is "payments" or
    "payments/card"; attributes are facts of the object that policies may read."""

    kind: str
    name: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    allowed: bool
    policies: tuple[str, ...]
    """Ids of the policies that decided; for a denial by default, empty."""
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    decision: Decision
    flips: Sequence[str]
    """Single-fact changes that would turn the answer, as sentences."""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


class Policy(Protocol):
    @property
    def epoch(self) -> int:
        """Grows at each reload: what was decided before it is void."""
        ...

    def decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        """Cached. Never raises: an error while deciding is a denial with `errors`."""
        ...

    def explain(self, caller: Caller, action: str, resource: Resource) -> Explanation: ...
