"""Random policy sets: what is decided is what Cedar says of the text as it stands, and an error never allows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon.identity.caller import Caller
from openk_daemon.policy.decision import Resource
from openk_daemon.policy.engine import Engine
from openk_daemon.policy.facts import entities, request
from openk_daemon.policy.shipped import SCHEMA, shipped_policies
from tests.support.policies import ADMINISTRATOR, NAMES, caller, key, names, policy_folder

OVERFLOW = "principal.uid + 9223372036854775807 > 0"  # an error for every uid but 0

# The administrator's way in, so that no random forbid is a lockout.
DOOR = 'permit (principal, action == Action::"policy.reload", resource) when { principal.uid == 900 };'

callers = st.builds(
    caller,
    st.sampled_from([1, 1000, 1001, ADMINISTRATOR]),
    groups=st.sampled_from([(), (34,), (34, 1000)]),
    unit=st.sampled_from([None, "web.service", "user@1000.service/web.service"]),
    administrator=st.booleans(),
)
keys = st.builds(
    key,
    st.sampled_from(["payments/card", "payments/a/b", "releases/app"]),
    st.sampled_from([None, "p-256", "ed25519"]),
)
atoms = st.sampled_from(
    [
        "principal.administrator",
        "principal.uid == 1000",
        "principal.uid > 500",
        "[1000, 1001].contains(principal.uid)",
        "principal.groups.contains(34)",
        'principal.group_names.contains("backup")',
        'principal has unit && principal.unit == "web.service"',
        'principal has unit && principal.unit like "*;*//*web.service"',
        'principal has name && principal.name == "alice"',
        'resource has algorithm && resource.algorithm == "p-256"',
        'resource.name like "a*"',
        'resource.vault == "releases"',
        'resource in Vault::"payments"',
        OVERFLOW,
        "true",
    ]
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=4,
)
scopes = st.builds(
    "{} (principal{}, {}, {})".format,
    st.sampled_from(["permit", "forbid"]),
    st.sampled_from(["", ' == User::"1000"']),
    st.sampled_from(
        [
            'action == Action::"key.sign"',
            'action in [Action::"key.sign", Action::"key.derive"]',
            'action in [Action::"key.derive", Action::"key.create"]',
        ]
    ),
    st.sampled_from(["resource", 'resource in Vault::"payments"', 'resource == Key::"releases/app"']),
)
policies = st.builds(
    "{}{}\n{} {{ {} }};{}".format,
    st.sampled_from(["", '// a comment; with " quotes\n', "\n\n"]),
    scopes,
    st.sampled_from(["when", "unless"]),
    conditions,
    st.sampled_from(["\n", " ", " // end; of line\n"]),
)
sets = st.lists(policies, min_size=1, max_size=6).map("".join)


def engine_of(folder: str, text: str) -> Engine:
    files = {"05-door.cedar": DOOR, "50-random.cedar": text}
    return Engine(policy_folder(Path(folder) / "p", files, shipped=False), {ADMINISTRATOR}, names=names)


def by_cedar(text: str, who: Caller, action: str, what: Resource) -> tuple[bool, bool]:
    """(allowed, errors) by Cedar's own reading of the whole text."""
    schema = cedarpy.Schema.from_str((shipped_policies() / SCHEMA).read_text("utf-8"))
    answer = cedarpy.is_authorized(request(who, action, what), DOOR + text, entities(who, what, NAMES), schema)
    return answer.decision is cedarpy.Decision.Allow, bool(answer.diagnostics.errors)


@settings(max_examples=60, deadline=None)
@given(
    sets,
    st.lists(st.tuples(callers, st.sampled_from(["key.sign", "key.derive", "key.mac"]), keys), min_size=1, max_size=6),
)
def test_decisions_are_cedars_but_for_errors_and_remembering_changes_none(
    text: str, questions: list[tuple[Caller, str, Resource]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        policy = engine_of(folder, text)
        for who, action, what in [*questions, *questions]:
            decision = policy.decide(who, action, what)
            assert decision == policy._set.judge.decide(who, action, what)
            allowed, errors = by_cedar(text, who, action, what)
            assert decision.allowed is (allowed and not errors)
            assert bool(decision.errors) is errors


@settings(max_examples=60, deadline=None)
@given(sets, sets, callers, keys, st.sampled_from(["key.sign", "key.derive"]))
def test_a_set_with_a_forbid_that_errors_never_allows(
    before: str, after: str, who: Caller, what: Resource, action: str
) -> None:
    """Cedar itself skips such a forbid and may say Allow."""
    forbid = (
        f'forbid (principal, action in [Action::"key.sign", Action::"key.derive"], resource) when {{ {OVERFLOW} }};\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        policy = engine_of(folder, before + forbid + after)
        for _ in range(2):
            decision = policy.decide(who, action, what)
            assert not decision.allowed
            assert decision.errors
            assert decision.policies == ()


def test_cedar_itself_does_allow_then() -> None:
    """The positive control of the test above."""
    text = f"permit (principal, action, resource); forbid (principal, action, resource) when {{ {OVERFLOW} }};"
    assert by_cedar(text, caller(1000), "key.sign", key("payments/card")) == (True, True)
