"""policy.explain and policy.reload, as the pipeline calls them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from openk.wire.methods import METHODS
from openk_daemon.call import Arguments, Call, Outcome, Value
from openk_daemon.handlers.policy import PolicyHandlers
from openk_daemon.identity.caller import Caller
from openk_daemon.policy.engine import Engine
from openk_daemon.refusal import Refusal
from openk_hsm.pending import settle
from tests.support.policies import ADMINISTRATOR, SYSTEM, administrator, caller, engine, example, key, peer

KEYS = {"releases/app": (("algorithm", "p-256"), ("purpose", "sign"), ("protection", "wrapped"))}


async def describe(name: str) -> tuple[tuple[str, str], ...]:
    return KEYS.get(name, ())


@pytest.fixture
def policy(tmp_path: Path) -> Engine:
    files = {f"20-{name}.cedar": example(f"{name}.cedar") for name in ("web-service", "ci-signer", "backup-group")}
    return engine(tmp_path / "p", files)


async def ask(policy: Engine, who: Caller, method: str, values: Mapping[str, Value] | None = None) -> Outcome:
    arguments = Arguments(values or {})
    call = Call(METHODS[method], arguments, (arguments,), batch=False, resource=SYSTEM, peer=peer(who), request="r1")
    flow = PolicyHandlers(policy, describe).handlers()[method](call)
    return await settle(flow)


async def answer(policy: Engine, who: Caller, **values: Value) -> Mapping[str, object]:
    (result,) = (await ask(policy, who, "policy.explain", values)).results
    assert not isinstance(result, Refusal)
    assert set(result) == {field.name for field in METHODS["policy.explain"].result}
    return result


async def refused(policy: Engine, who: Caller, **values: Value) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await ask(policy, who, "policy.explain", values)
    return caught.value


async def test_anybody_may_ask_about_themselves(policy: Engine) -> None:
    web = caller(33, unit="web.service")
    found = await answer(policy, web, action="key.encrypt", resource="payments/card")
    assert found["allowed"] is True
    assert found["policies"] == ["20-web-service.cards"]
    found = await answer(policy, web, action="policy.reload")
    assert found["allowed"] is False
    assert found["flips"] == ["It would be allowed if the caller were an administrator."]
    # Naming oneself is not asking about another.
    assert (await answer(policy, web, action="policy.reload", uid=33, unit="web.service"))["allowed"] is False


@pytest.mark.parametrize(
    "other", [{"uid": 34}, {"unit": "web2.service"}, {"unit": ""}, {"uid": 34, "unit": "web.service"}]
)
async def test_asking_about_others_needs_its_own_permission(policy: Engine, other: dict[str, Value]) -> None:
    refusal = await refused(policy, caller(33, unit="web.service"), action="system.ping", **other)
    assert refusal.code.name == "policy.denied"
    assert "policy.explain_others" in refusal.message


async def test_an_administrator_may_ask_about_a_user_and_a_unit(policy: Engine) -> None:
    found = await answer(policy, administrator(), action="secret.get", resource="payments/db", uid=1000)
    assert found["allowed"] is True  # by the memberships in the group file
    assert cast("dict[str, str]", found["facts"])["groups"] == "34 (backup), 1000 (alice)"
    found = await answer(
        policy, administrator(), action="key.encrypt", resource="payments/card", uid=1001, unit="web.service"
    )
    assert found["allowed"] is True
    found = await answer(policy, administrator(), action="policy.reload", uid=5)
    assert found["allowed"] is False
    found = await answer(policy, caller(ADMINISTRATOR, administrator=True), action="policy.reload", unit="x.service")
    assert found["allowed"] is True  # still the same administrator, in that unit
    root = caller(1234, administrator=True)
    assert (await answer(policy, root, action="policy.reload", uid=ADMINISTRATOR))["allowed"] is True


async def test_facts_of_a_key_are_used_but_shown_only_to_who_may_describe_it(policy: Engine) -> None:
    runner = caller(998, unit="ci-runner@1.service")
    found = await answer(policy, runner, action="key.sign", resource="releases/app")
    assert found["allowed"] is True
    assert cast("dict[str, str]", found["facts"])["algorithm"] == "p-256"
    stranger = await answer(policy, caller(1001), action="key.sign", resource="releases/app")
    nothing = await answer(policy, caller(1001), action="key.sign", resource="releases/none")
    assert "algorithm" not in cast("dict[str, str]", stranger["facts"])
    assert set(cast("dict[str, str]", stranger["facts"])) == set(cast("dict[str, str]", nothing["facts"]))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"action": "key.sing"}, "did you mean key.sign?"),
        ({"action": "zzzzzz"}, "no such action"),
        ({"action": "key.sign"}, "acts on a key: name it as resource, VAULT/NAME"),
        ({"action": "key.sign", "resource": "vault"}, "a name is VAULT/NAME"),
        ({"action": "key.list", "resource": "a/b"}, "a vault's name is"),
        ({"action": "key.list"}, "acts on a vault: name it as resource, VAULT"),
        ({"action": "system.ping", "resource": "a"}, "acts on the system: leave resource out"),
        ({}, "action is missing"),
    ],
)
async def test_questions_that_make_no_sense(policy: Engine, values: dict[str, Value], sentence: str) -> None:
    refusal = await refused(policy, caller(), **values)
    assert refusal.code.name == "request.invalid"
    assert sentence in refusal.message


async def test_an_explanation_is_recorded_with_what_was_asked(policy: Engine) -> None:
    outcome = await ask(policy, caller(), "policy.explain", {"action": "key.sign", "resource": "a/b"})
    assert outcome.facts == (("asked", "key.sign"), ("allowed", 0))
    assert not outcome.writes


async def test_a_reload_is_in_force_once_it_is_durable(policy: Engine, tmp_path: Path) -> None:
    text = 'permit (principal, action == Action::"key.sign", resource) when { principal.uid == 1001 };'
    (tmp_path / "p" / "30-new.cedar").write_text(text, "utf-8")
    outcome = await ask(policy, administrator(), "policy.reload")
    assert list(outcome.results) == [{"epoch": 2, "policies": 8}]
    assert dict(outcome.facts)["epoch"] == 2
    assert len(str(dict(outcome.facts)["sha256"])) == 64
    assert policy.epoch == 1
    assert not policy.decide(caller(1001), "key.sign", key("a/b")).allowed
    for step in outcome.after:
        step.apply()
    assert policy.epoch == 2
    assert policy.decide(caller(1001), "key.sign", key("a/b")).allowed


async def test_a_bad_set_is_refused_with_its_mistakes(policy: Engine, tmp_path: Path) -> None:
    (tmp_path / "p" / "30-new.cedar").write_text("permit (", "utf-8")
    with pytest.raises(Refusal) as caught:
        await ask(policy, administrator(), "policy.reload")
    assert caught.value.code.name == "policy.invalid"
    assert caught.value.details == {"mistakes": ["30-new.cedar:1: policy 1: unexpected end of input"]}
    assert policy.epoch == 1
