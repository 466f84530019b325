"""How many requests a caller, a unit, a vault or a method may have: token buckets, found once a shape of request.

    rule [rate.NAME] + what it counts apart (uid, unit, vault, method) ─▶ one Bucket

A bucket holds at most `burst` tokens and gains `per_second` of them; a request takes one, a batch one an item.  A
request that several rules meet needs all of them.  A batch larger than the burst is let in by a full bucket, which then
owes: the rate holds, and nothing is impossible that is only large.

Buckets are bounded: full ones that nobody holds are forgotten (a new one is full, too), and where there are
`BUCKETS_MOST` that are not full, newcomers of a rule share one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal

from openk_daemon.identity.caller import Caller
from openk_daemon.refusal import Refusal

Part = Literal["uid", "unit", "vault", "method"]
BUCKETS_MOST: Final = 16_384
SWEPT_FROM: Final = 256
"""Fewer buckets are not looked through."""
_SHARED: Final = ("", "", "", "")


@dataclass(frozen=True, slots=True)
class Rule:
    """Whom it concerns: all of `uids`, `units`, `methods`, `vaults` that are not empty. `per`: what has a bucket each;
    without, all share one. `per_second` and `burst` are above 0."""

    name: str
    per_second: float
    burst: int
    per: tuple[Part, ...] = ("uid",)
    uids: frozenset[int] = frozenset()
    units: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    vaults: frozenset[str] = frozenset()
    administrators: bool = False

    def concerns(self, caller: Caller, method: str, vault: str) -> bool:
        return (
            (self.administrators or not caller.administrator)
            and (not self.uids or caller.uid in self.uids)
            and (not self.units or caller.unit in self.units)
            and (not self.methods or method in self.methods)
            and (not self.vaults or vault in self.vaults)
        )

    def key(self, caller: Caller, method: str, vault: str) -> tuple[str, str, str, str]:
        """Which of the rule's buckets."""
        per = self.per
        return (
            str(caller.uid) if "uid" in per else "",
            caller.unit or "" if "unit" in per else "",
            vault if "vault" in per else "",
            method if "method" in per else "",
        )


class Bucket:
    """Tokens as of `since`. Times are monotonic seconds and do not go back."""

    __slots__ = ("__weakref__", "burst", "per_second", "refused", "rule", "since", "tokens")

    def __init__(self, rule: Rule, now: float) -> None:
        self.rule = rule.name
        self.per_second = rule.per_second
        self.burst = float(rule.burst)
        self.tokens = self.burst
        self.since = now
        self.refused = 0

    def wait(self, cost: int, now: float) -> float:
        """Seconds until `cost` tokens may be taken; 0.0: now."""
        tokens = self.tokens + (now - self.since) * self.per_second
        if tokens > self.burst:
            tokens = self.burst
        self.tokens = tokens
        self.since = now
        lacking = (cost if cost < self.burst else self.burst) - tokens
        return lacking / self.per_second if lacking > 0.0 else 0.0

    def full(self, now: float) -> bool:
        return self.tokens + (now - self.since) * self.per_second >= self.burst


def admit(buckets: tuple[Bucket, ...], cost: int) -> None:
    """Take `cost` tokens (at least one) of each. Raises Refusal request.rate_limited, and then takes none."""
    now = monotonic()
    cost = cost or 1
    for bucket in buckets:
        wait = bucket.wait(cost, now)
        if wait:
            bucket.refused += 1
            raise Refusal(
                "request.rate_limited",
                f"more than {bucket.per_second:g} requests a second (limit {bucket.rule})",
                retry_after=round(wait + 0.0005, 3),
                details={"limit": bucket.rule},
            )
    for bucket in buckets:
        bucket.tokens -= cost


class Rates:
    """The rules in force and their buckets. Not for threads."""

    def __init__(self, rules: Sequence[Rule] = (), clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._rules: tuple[Rule, ...] = tuple(rules)
        self._buckets: dict[tuple[str, str, str, str, str], Bucket] = {}
        self._refused: dict[str, int] = {}  # by rule, of buckets that are gone

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._rules

    def __len__(self) -> int:
        return len(self._buckets)

    def buckets(self, caller: Caller, method: str, vault: str) -> tuple[Bucket, ...]:
        """What a request must take from; hold them as long as requests like it come. `vault` is empty where none is
        named, `method` where it is none of ours."""
        if not self._rules:
            return ()
        return tuple(
            self._bucket(rule, rule.key(caller, method, vault))
            for rule in self._rules
            if rule.concerns(caller, method, vault)
        )

    def _bucket(self, rule: Rule, key: tuple[str, str, str, str]) -> Bucket:
        bucket = self._buckets.get((rule.name, *key))
        if bucket is not None:
            return bucket
        if len(self._buckets) >= BUCKETS_MOST:
            self.sweep()
        if len(self._buckets) >= BUCKETS_MOST:
            key = _SHARED
            bucket = self._buckets.get((rule.name, *key))
        if bucket is None:
            bucket = self._buckets[rule.name, *key] = Bucket(rule, self._clock())
        return bucket

    def sweep(self) -> None:
        """Forget buckets that are full and that nobody holds: what holds one may use it at any time, and a second
        bucket of the same key would double the rate."""
        if len(self._buckets) < SWEPT_FROM:
            return
        now = self._clock()
        for key in [key for key, bucket in self._buckets.items() if bucket.full(now)]:
            bucket = self._buckets.pop(key)
            rule, refused, alive = bucket.rule, bucket.refused, weakref.ref(bucket)
            del bucket
            held = alive()
            if held is not None:
                self._buckets[key] = held
            else:
                self._refused[rule] = self._refused.get(rule, 0) + refused

    def replace(self, rules: Sequence[Rule]) -> None:
        """Other rules from now on. Buckets of rules that stay the same keep their tokens; whoever holds buckets must
        ask for them anew."""
        unchanged = {rule.name for rule in rules if rule in self._rules}
        for key in [key for key in self._buckets if key[0] not in unchanged]:
            bucket = self._buckets.pop(key)
            self._refused[bucket.rule] = self._refused.get(bucket.rule, 0) + bucket.refused
        self._rules = tuple(rules)

    def refused(self) -> Mapping[str, int]:
        """Requests refused so far, by rule: those in force, and those that were."""
        counts = dict.fromkeys((rule.name for rule in self._rules), 0) | self._refused
        for bucket in self._buckets.values():
            counts[bucket.rule] = counts.get(bucket.rule, 0) + bucket.refused
        return counts
