"""The schema is the method table, as Cedar sees it."""

from __future__ import annotations

import re

import pytest

from openk.wire.methods import METHODS
from openk_daemon.policy.loader import EXPLAIN_OTHERS
from openk_daemon.policy.shipped import SCHEMA, shipped_policies

GROUPS = {"everybody", "read", "use", "export", "change", "administer"}


def declared() -> dict[str, tuple[set[str], str]]:
    """Action to its groups and the resource type it applies to, read from the text with a parser of our own."""
    text = re.sub(r"//[^\n]*", "", (shipped_policies() / SCHEMA).read_text("utf-8"))
    found: dict[str, tuple[set[str], str]] = {}
    pattern = r"action\s+((?:\"[^\"]+\"[\s,]*)+)in\s*\[([^\]]*)\]\s*appliesTo\s*\{[^}]*resource:\s*\[(\w+)\]\s*\}"
    for actions, groups, resource in re.findall(pattern, text):
        for action in re.findall(r'"([^"]+)"', actions):
            assert action not in found, f"{action} is declared twice"
            found[action] = (set(re.findall(r'"([^"]+)"', groups)), resource)
    return found


def test_there_is_one_action_for_each_method_and_one_to_explain_others() -> None:
    assert set(declared()) == {*METHODS, EXPLAIN_OTHERS}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_an_action_applies_to_what_its_method_is_on(method: object) -> None:
    name, on = method.name, method.on  # type: ignore[attr-defined]
    assert declared()[name][1] == on


def test_groups_say_what_they_are_for() -> None:
    actions = declared()
    assert set().union(*(groups for groups, _ in actions.values())) == GROUPS
    assert {name for name, (groups, _) in actions.items() if "everybody" in groups} == {
        "system.hello",
        "system.ping",
        "system.methods",
        "policy.explain",
    }
    # What changes something is in "change", and nothing that only reads or uses is.
    assert {name for name, (groups, _) in actions.items() if "change" in groups} == {
        name for name, method in METHODS.items() if method.changes
    }


def test_whatever_answers_with_a_secret_from_inside_is_an_export() -> None:
    """Plaintext that the caller encrypted, and random bytes, are not openk's secrets."""
    secret = {name for name, method in METHODS.items() if any(field.secret for field in method.result)}
    exports = {name for name, (groups, _) in declared().items() if "export" in groups}
    assert exports == secret - {"key.decrypt", "random.bytes"}


def test_the_reference_lists_the_groups_as_they_are() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", (shipped_policies() / "README.md").read_text("utf-8"), re.MULTILINE)
    )
    actions = declared()
    for group in GROUPS - {"use"}:  # "every use of a key" is said in words
        listed = set(re.findall(r"[a-z]+\.[a-z_]+", rows[group]))
        assert listed == {name for name, (groups, _) in actions.items() if group in groups}
