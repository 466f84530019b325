"""The constants that policies compare facts with: the users, groups, units, vaults ... they speak of.

Read from Cedar's JSON policy format by its shape alone: each operator with a fact on one side and constants on the
other. It may find too much, which costs a question more, and never decides anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

Constant = str | int
_WILDCARD: Final = "*"
_OPERATORS: Final = frozenset(
    {"==", "!=", "<", "<=", ">", ">=", "in", "contains", "containsAll", "containsAny", "like"}
)


class Mentions:
    """`facts` maps (variable, attribute) to constants; `like` patterns are among them, written with `*`.
    `entities` maps an entity type to the ids that are spoken of."""

    def __init__(self) -> None:
        self.facts: defaultdict[tuple[str, str], set[Constant]] = defaultdict(set)
        self.entities: defaultdict[str, set[str]] = defaultdict(set)
        self.read: set[tuple[str, str]] = set()
        """Every (variable, attribute) that a policy reads, compared or not."""

    def texts(self, variable: str, attribute: str) -> list[str]:
        """Constants that are text, sorted; a pattern's `*` stands for itself, which it matches."""
        return sorted(value for value in self.facts[variable, attribute] if isinstance(value, str))

    def numbers(self, variable: str, attribute: str) -> list[int]:
        return sorted(value for value in self.facts[variable, attribute] if isinstance(value, int))

    def add(self, tree: object) -> None:
        """Gather from a policy and all parts of it."""
        for node in _parts(tree):
            self._entity(node)
            fact = _fact(node)
            if fact:
                self.read.add(fact)
            for operator in _OPERATORS & node.keys():
                self._compare(node[operator])

    def _entity(self, node: Mapping[str, object]) -> None:
        """{"type": T, "id": I}, in a scope, or inside "__entity" in an expression."""
        type_, id_ = node.get("type"), node.get("id")
        if isinstance(type_, str) and isinstance(id_, str):
            self.entities[type_].add(id_)

    def _compare(self, operands: object) -> None:
        below = list(_parts(operands))
        facts = {fact for fact in (_fact(node) for node in below) if fact}
        constants = {constant for node in below for constant in _constants(node)}
        for fact in facts:
            self.facts[fact] |= constants


def mentions(trees: Iterable[object]) -> Mentions:
    """What these policies speak of."""
    found = Mentions()
    for tree in trees:
        found.add(tree)
    return found


def _parts(tree: object) -> Iterator[Mapping[str, object]]:
    """Every map in a tree, the tree itself first. Without recursion: a long chain of `||` is a deep tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            found = cast("Mapping[str, object]", node)
            yield found
            waiting.extend(found.values())
        elif isinstance(node, list):
            waiting.extend(cast("list[object]", node))


def _fact(node: Mapping[str, object]) -> tuple[str, str] | None:
    """{".": {"left": {"Var": V}, "attr": A}} is V.A"""
    access = _map(node.get("."))
    variable, attribute = _map(access.get("left")).get("Var"), access.get("attr")
    return (variable, attribute) if isinstance(variable, str) and isinstance(attribute, str) else None


def _constants(node: Mapping[str, object]) -> Iterable[Constant]:
    value = node.get("Value")
    if isinstance(value, str | int) and not isinstance(value, bool):
        yield value
    pattern = node.get("pattern")
    if isinstance(pattern, list):
        yield "".join(_pattern_part(part) for part in cast("list[object]", pattern))


def _pattern_part(part: object) -> str:
    literal = _map(part).get("Literal")
    return literal if isinstance(literal, str) else _WILDCARD


def _map(node: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", node) if isinstance(node, Mapping) else {}
