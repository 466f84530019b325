"""When a key's newest version is due to be replaced: rules, facts of a key and a moment in, a judgement out. Pure.

    rule [rotation.NAME]   which keys, after how long, after how many uses, and whether openkd rotates or only tells
    Facts                  of a key and its newest version
    judge(rules, facts, now) ─▶ Due: by which rule, since or from when, what openkd does about it

Every rule that concerns a key holds, and the one that comes first decides: rules lie in several files, whose order
should mean nothing, and another rule can only bring a rotation forward. A version that was made at `now` and is unused
is due by no rule, so that a rotation never leads to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400_000
"""Milliseconds."""
SAYS_VERSION: Final = frozenset({"aes-256-gcm"})
"""Algorithms whose results say which version made them: nobody has to learn of a rotation. After any other somebody
has: a public key is to be handed out, a MAC or a derived key is another one unless the version is named."""
COUNTED: Final = frozenset({"aes-256-gcm"})
"""Algorithms whose uses are counted (openk_daemon.keys.usage)."""
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Facts:
    """`created`: of the newest version, milliseconds since the epoch. `uses`: of it, at least so many as there were;
    None where they are not counted. `resident`: each version is an object of its token, which has room for so many."""

    name: str
    algorithm: str
    purpose: str
    created: int
    uses: int | None = None
    resident: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """It concerns keys that meet each of `vaults`, `keys`, `algorithms`, `purposes` that is not empty. `keys`: names,
    VAULT/NAME, or beginnings of them with `*` behind. `after`: milliseconds. One of `after` and `uses`, at least."""

    name: str
    after: int | None = None
    uses: int | None = None
    rotates: bool = False
    vaults: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()
    algorithms: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()

    def concerns(self, name: str, algorithm: str, purpose: str) -> bool:
        return (
            (not self.vaults or name.partition("/")[0] in self.vaults)
            and (not self.algorithms or algorithm in self.algorithms)
            and (not self.purposes or purpose in self.purposes)
            and (not self.keys or any(fits(pattern, name) for pattern in self.keys))
        )

    def reaches(self, vault: str) -> bool:
        """Whether it may concern a key of that vault."""
        return (not self.vaults or vault in self.vaults) and (
            not self.keys or any(pattern.partition("/")[0] == vault for pattern in self.keys)
        )

    def acts_on(self, key: Facts) -> bool:
        """Whether openkd may rotate the key by itself: where nobody has to know, nor a token to have room, and else
        where the rule names what it is."""
        unnoticed = key.algorithm in SAYS_VERSION and not key.resident
        return self.rotates and (unnoticed or key.algorithm in self.algorithms)


@dataclass(frozen=True, slots=True)
class Due:
    """`at`: milliseconds since the epoch; None where only uses will tell. `now`: it is due already. `acts`: openkd
    rotates it; otherwise it tells."""

    rule: str
    at: int | None
    now: bool
    acts: bool


def fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith(ANY) else name == pattern


def judge(rules: Sequence[Rule], key: Facts, now: int) -> Due | None:
    """None where no rule concerns the key. Of several rules that have come due one by which openkd acts goes first, so
    that what only tells is no hindrance; else the one that came, or comes, earliest."""
    found = [_apply(rule, key, now) for rule in rules if rule.concerns(key.name, key.algorithm, key.purpose)]
    return min(found, key=_order, default=None)


def _apply(rule: Rule, key: Facts, now: int) -> Due:
    at = None if rule.after is None else key.created + rule.after
    used = rule.uses is not None and key.uses is not None and key.uses >= rule.uses
    if used and (at is None or at > now):
        at = now
    return Due(rule.name, at, at is not None and at <= now, rule.acts_on(key))


def _order(due: Due) -> tuple[bool, bool, bool, int, str]:
    return not due.now, due.now and not due.acts, due.at is None, due.at or 0, due.rule
