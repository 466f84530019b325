"""The policy in force: decides from memory where it can, explains, and is replaced as a whole or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openk_daemon.identity.caller import Caller
from openk_daemon.policy import explanation
from openk_daemon.policy.decision import Decision, Explanation, Resource
from openk_daemon.policy.loader import PolicySet, load
from openk_daemon.policy.names import Names, local_names

DECISIONS: Final = 16_384

_Table = dict[tuple[str, str, tuple[tuple[str, str], ...], str], "Decision"]
"""Decisions of one caller by action, and the resource's name, attributes and kind."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A set that passed every check and is not in force yet. `epoch` is the one it will have."""

    set: PolicySet
    epoch: int


class Engine:
    """Implements `openk_daemon.policy.decision.Policy`. Used from one thread.

    Decisions are remembered by caller, action and resource, which are all the facts there are, until the next
    reload. A caller's table is found by the identity of the caller's object, which is several times quicker than by
    its value; objects that are known stay referenced, so that no other object can have that identity. At `decisions`
    of them all are forgotten: simpler than choosing, and it costs 0.1 ms an entry to know them again."""

    def __init__(
        self,
        folder: Path,
        administrators: Collection[int],
        *,
        decisions: int = DECISIONS,
        names: Callable[[], Names] = local_names,
    ) -> None:
        """Loads the set in `folder`. `administrators` are uids. Raises Refusal: policy.invalid, policy.lockout."""
        self._folder = folder
        self._administrators = frozenset(administrators)
        self._most = decisions
        self._names = names
        self._epochs = itertools.count(1)
        self._tables: dict[int, _Table] = {}
        self._callers: dict[Caller, _Table] = {}
        self._held: list[Caller] = []
        self._remembered = 0
        self.evaluated = 0
        """Decisions that were not in memory, since the start: for metrics."""
        self.found = 0
        """Decisions that were."""
        first = self.prepare()
        self._set, self._epoch = first.set, first.epoch

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def policies(self) -> int:
        """How many policies are in force."""
        return len(self._set.statements)

    @property
    def remembered(self) -> int:
        """Decisions in memory now, for metrics; at most `decisions`."""
        return self._remembered

    def names(self) -> Names:
        """Users and groups by name, as they were when the set was loaded."""
        return self._set.names

    def is_administrator(self, uid: int) -> bool:
        return uid in self._administrators

    def decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        table = self._tables.get(id(caller))
        if table is not None:
            known = table.get((action, resource.name, resource.attributes, resource.kind))
            if known is not None:
                self.found += 1
                return known
        return self._decide(caller, action, resource)

    def _decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        if self._remembered >= self._most or len(self._held) >= self._most:
            self._forget()
        if id(caller) not in self._tables:
            self._tables[id(caller)] = self._callers.setdefault(caller, {})
            self._held.append(caller)
        table = self._tables[id(caller)]
        key = (action, resource.name, resource.attributes, resource.kind)
        decision = table.get(key)  # an equal caller's
        if decision is None:
            decision = table[key] = self._set.judge.decide(caller, action, resource)
            self._remembered += 1
            self.evaluated += 1
        return decision

    def _forget(self) -> None:
        self._tables.clear()
        self._callers.clear()
        self._held.clear()
        self._remembered = 0

    def explain(self, caller: Caller, action: str, resource: Resource) -> Explanation:
        return explanation.explain(self._set, caller, action, resource)

    def prepare(self) -> Candidate:
        """Load and check the folder anew; the set in force stays. Raises Refusal: policy.invalid, policy.lockout."""
        loaded = load(self._folder, self._administrators, self._names())
        return Candidate(loaded, next(self._epochs))

    def adopt(self, candidate: Candidate) -> None:
        """Put a candidate in force and forget every decision. One that was overtaken by a later one is dropped."""
        if candidate.epoch > self._epoch:
            self._set, self._epoch = candidate.set, candidate.epoch
            self._forget()

    def reload(self) -> int:
        """`prepare` and `adopt`: for SIGHUP. Returns the new epoch. Raises Refusal, and then nothing has changed."""
        candidate = self.prepare()
        self.adopt(candidate)
        return candidate.epoch
