"""Explanations: who decided, and true sentences about what would turn the answer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk_daemon.identity.caller import Caller
from openk_daemon.policy.cedar import Judge, parse_policy, parse_schema
from openk_daemon.policy.decision import Resource
from openk_daemon.policy.engine import Engine
from openk_daemon.policy.explanation import TRIALS_MOST, changes
from openk_daemon.policy.mentions import mentions
from openk_daemon.policy.shipped import SCHEMA, shipped_policies
from tests.support.policies import SYSTEM, administrator, caller, engine, example, key, secret, vault

EXAMPLES = {f"20-{name}.cedar": example(f"{name}.cedar") for name in ("web-service", "backup-group", "ci-signer")}
IF_ADMINISTRATOR = "It would be allowed if the caller were an administrator."


@pytest.fixture
def policy(tmp_path: Path) -> Engine:
    return engine(tmp_path / "p", EXAMPLES)


def test_a_denial_by_default_names_no_policy_and_what_is_missing(policy: Engine) -> None:
    found = policy.explain(caller(1000), "secret.get", secret("payments/db"))
    assert not found.decision.allowed
    assert found.decision.policies == ()
    assert list(found.flips) == [IF_ADMINISTRATOR, "It would be allowed if the caller were in the group 34 (backup)."]


def test_a_wrong_unit_a_wrong_key_and_a_wrong_vault(policy: Engine) -> None:
    assert list(policy.explain(caller(33), "key.encrypt", key("payments/card")).flips) == [
        IF_ADMINISTRATOR,
        "It would be allowed if the caller ran in the unit web.service.",
    ]
    web = caller(33, unit="web.service")
    assert list(policy.explain(web, "key.encrypt", key("payments/other")).flips) == [
        IF_ADMINISTRATOR,
        "It would be allowed if the key were payments/card.",
    ]
    member = caller(1000, groups=(34,))
    assert list(policy.explain(member, "secret.list", vault("orders")).flips) == [
        IF_ADMINISTRATOR,
        "It would be allowed if the vault were payments.",
    ]
    assert list(policy.explain(member, "secret.get", secret("orders/db")).flips) == [
        IF_ADMINISTRATOR,
        "It would be allowed if the secret were in the vault payments.",
    ]


def test_a_wrong_algorithm(policy: Engine) -> None:
    runner = caller(998, unit="ci-runner@1.service")
    assert list(policy.explain(runner, "key.sign", key("releases/app", "ed25519")).flips) == [
        IF_ADMINISTRATOR,
        "It would be allowed if the key's algorithm were p-256.",
    ]
    assert "It would be allowed if the caller ran in a unit like ci-runner@*.service." in (
        policy.explain(caller(998), "key.sign", key("releases/app", "p-256")).flips
    )


def test_a_forbid_is_named_and_what_would_lift_it(policy: Engine) -> None:
    found = policy.explain(caller(900, groups=(34,), administrator=True), "secret.delete", secret("payments/db"))
    assert found.decision.policies == ("20-backup-group.never-change",)
    assert list(found.flips) == [
        "It would be allowed if the secret were in another vault.",
        "It would be allowed if the caller were not in the group 34 (backup).",
    ]


def test_what_would_take_a_permission_away(policy: Engine) -> None:
    found = policy.explain(administrator(), "policy.reload", SYSTEM)
    assert found.decision.policies == ("10-administrators.everything",)
    assert list(found.flips) == ["It would be refused if the caller were not an administrator."]


def test_users_by_number_name_and_entity(tmp_path: Path) -> None:
    texts = {
        "20-a.cedar": 'permit (principal == User::"1001", action == Action::"key.sign", resource);',
        "30-b.cedar": 'permit (principal, action == Action::"key.mac", resource) when { principal.uid == 1001 };',
        "40-c.cedar": 'permit (principal, action == Action::"key.wrap", resource) '
        'when { principal has name && principal.name == "bob" };',
    }
    policy = engine(tmp_path / "p", texts)
    for action in ("key.sign", "key.mac", "key.wrap"):
        expected = "It would be allowed if the caller were the user 1001 (bob)."
        assert expected in policy.explain(caller(1000), action, key("a/b")).flips
        assert (
            "It would be refused if the caller were another user."
            in policy.explain(caller(1001), action, key("a/b")).flips
        )


def flips(policy: Engine, who: Caller, what: Resource) -> list[str]:
    return [flip for flip in policy.explain(who, "key.sign", what).flips if flip != IF_ADMINISTRATOR]


def test_a_program_a_primary_group_and_a_unit_are_spoken_of(tmp_path: Path) -> None:
    text = """
        permit (principal, action == Action::"key.sign", resource)
        when { principal has executable && principal.executable == "/usr/bin/signer" };
        permit (principal, action == Action::"key.sign", resource) when { principal.gid == 34 };
        forbid (principal, action == Action::"key.sign", resource)
        when { principal has unit && principal.unit == "debug.service" };
    """
    policy = engine(tmp_path / "p", {"20-a.cedar": text})
    assert flips(policy, caller(1000), key("a/b")) == [
        "It would be allowed if the caller's primary group were 34 (backup).",
        "It would be allowed if the caller's program were /usr/bin/signer.",
    ]
    signer = caller(1000, executable="/usr/bin/signer")
    assert "It would be refused if the caller's program were unknown." in flips(policy, signer, key("a/b"))
    debugged = caller(1000, executable="/usr/bin/signer", unit="debug.service")
    assert "It would be allowed if the caller ran in no unit." in flips(policy, debugged, key("a/b"))


def test_vaults_and_names_are_spoken_of_as_attributes_too(tmp_path: Path) -> None:
    text = """
        permit (principal, action == Action::"key.sign", resource) when { resource.vault == "payments" };
        permit (principal, action == Action::"key.sign", resource)
        when { resource.vault == "deep" && resource.name == "a/b" };
    """
    policy = engine(tmp_path / "p", {"20-a.cedar": text})
    assert flips(policy, caller(1000), key("payments/k")) == [
        "It would be refused if the key were in the vault deep.",
        "It would be refused if the key were in another vault.",
    ]
    assert flips(policy, caller(1000), key("deep/x/b")) == [
        "It would be allowed if the key were in the vault payments.",
        "It would be allowed if the key were deep/a/b.",
    ]
    assert flips(policy, caller(1000), key("other/a/b")) == [
        "It would be allowed if the key were in the vault deep.",
        "It would be allowed if the key were in the vault payments.",
    ]


def test_policies_of_other_actions_are_not_spoken_of(tmp_path: Path) -> None:
    many = "".join(
        f'permit (principal, action == Action::"key.mac", resource) when {{ principal.uid == {uid} }};\n'
        for uid in range(200)
    )
    mine = 'permit (principal, action in Action::"change", resource) when { principal.uid == 7 };'
    policy = engine(tmp_path / "p", {"20-many.cedar": many, "30-mine.cedar": mine})
    flips = policy.explain(caller(1000), "key.rotate", key("a/b")).flips
    assert list(flips) == [IF_ADMINISTRATOR, "It would be allowed if the caller were the user 7."]
    with mock.patch.object(Judge, "decide", autospec=True, side_effect=Judge.decide) as asked:
        assert len(policy.explain(caller(1000), "key.mac", key("a/b")).flips) <= TRIALS_MOST
    assert asked.call_count == TRIALS_MOST + 1, "bounded, however much the policies speak of"


def test_errors_are_in_the_explanation(tmp_path: Path) -> None:
    text = (
        'forbid (principal, action == Action::"key.sign", resource) when { principal.uid + 9223372036854775807 > 0 };'
    )
    found = engine(tmp_path / "p", {"20-a.cedar": text}).explain(administrator(), "key.sign", key("a/b"))
    assert not found.decision.allowed
    assert "20-a.1" in found.decision.errors[0]
    assert "overflow" in found.decision.errors[0]


def test_facts_are_for_people(policy: Engine) -> None:
    who = caller(1000, groups=(34, 77), unit="web.service", executable="/usr/bin/web")
    assert policy.explain(who, "key.sign", key("a/b", "p-256")).facts == {
        "user": "1000 (alice)",
        "groups": "34 (backup), 77, 1000 (alice)",
        "unit": "web.service",
        "executable": "/usr/bin/web",
        "administrator": "no",
        "resource": "Key a/b",
        "algorithm": "p-256",
        "purpose": "unknown",
        "protection": "unknown",
    }
    assert policy.explain(caller(5), "system.ping", SYSTEM).facts["resource"] == "System openk"


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        caller,
        st.sampled_from([33, 998, 1000]),
        groups=st.sampled_from([(), (34,)]),
        unit=st.sampled_from([None, "web.service", "ci-runner@2.service"]),
        executable=st.sampled_from([None, "/x"]),
        administrator=st.booleans(),
    ),
    st.sampled_from(["key.sign", "key.encrypt", "key.derive"]),
    st.builds(key, st.sampled_from(["payments/card", "releases/app", "x/y"]), st.sampled_from([None, "p-256"])),
)
def test_every_change_is_of_one_fact(who: object, action: str, what: object) -> None:
    """And each sentence is in the explanation exactly where the change turns the answer."""
    with tempfile.TemporaryDirectory() as folder:
        policy = engine(Path(folder) / "p", EXAMPLES)
        found = policy.explain(who, action, what)  # type: ignore[arg-type]
        judge = policy._set.judge
        spoken = mentions(statement.tree for statement in policy._set.statements)
        for change in changes(policy._set, spoken, who, what):  # type: ignore[arg-type]
            facts = ("uid", "gid", "groups", "unit", "executable", "administrator")
            differing = [fact for fact in facts if getattr(change.caller, fact) != getattr(who, fact)]
            differing += [
                fact for fact in ("name", "attributes") if getattr(change.resource, fact) != getattr(what, fact)
            ]
            assert len(differing) == 1
            turned = judge.decide(change.caller, action, change.resource).allowed is not found.decision.allowed
            if turned and judge.concerning(who, action, what):  # type: ignore[arg-type]
                sentence = f"It would be {'refused' if found.decision.allowed else 'allowed'} if {change.what}."
                assert sentence in found.flips or change.what not in "".join(found.flips)
        assert all(flip.startswith("It would be ") for flip in found.flips)


def test_mentions_are_found_in_every_shape() -> None:
    text = """permit (principal == User::"3", action, resource is Key in Vault::"x") when {
        principal has unit && principal.unit like "ci-*x" && [1, 2].contains(principal.uid) && resource in Vault::"q" &&
        principal.groups.containsAny([3, 4]) && (if principal has executable then principal.executable != "/a" else false) &&
        resource in [Key::"x/a", Key::"x/b"] && !(resource.name == "n") && 5 < principal.gid };"""
    tree = parse_policy(text, parse_schema((shipped_policies() / SCHEMA).read_text("utf-8")))
    found = mentions([tree])
    assert found.entities["User"] == {"3"}
    assert found.entities["Vault"] == {"x", "q"}
    assert found.entities["Key"] == {"x/a", "x/b"}
    assert found.texts("principal", "unit") == ["ci-*x"]
    assert found.texts("principal", "executable") == ["/a"]
    assert found.texts("resource", "name") == ["n"]
    assert found.numbers("principal", "uid") == [1, 2]
    assert found.numbers("principal", "groups") == [3, 4]
    assert found.numbers("principal", "gid") == [5]
    assert found.texts("principal", "gid") == []


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["==", "like", ".", "left", "right", "Var", "attr", "Value", "type", "id", "pattern"]),
            inner,
            max_size=4,
        ),
    ),
)


@given(trees)
def test_mentions_take_any_tree(tree: object) -> None:
    mentions([tree])
