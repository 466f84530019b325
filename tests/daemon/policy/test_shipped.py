"""The shipped set: deny, but for greetings and administrators; and the four examples as their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from openk.wire.methods import METHODS
from openk_daemon.policy.decision import Resource
from openk_daemon.policy.engine import Engine
from openk_daemon.policy.loader import EXPLAIN_OTHERS
from tests.support.policies import SYSTEM, administrator, caller, engine, example, key, secret, vault

ON = {
    "System": SYSTEM,
    "Vault": vault("payments"),
    "Key": key("payments/card", "p-256"),
    "Secret": secret("payments/db"),
}
EVERYBODY = {"system.hello", "system.ping", "system.methods", "policy.explain"}
WEB = caller(33, unit="web.service")
RUNNER = caller(998, unit="ci-runner@7.service")


def allowed(policy: Engine, who: object, resources: dict[str, Resource] = ON) -> set[str]:
    """Every action that `who` may do on these."""
    asked = {name: resources[method.on] for name, method in METHODS.items()} | {EXPLAIN_OTHERS: SYSTEM}
    decisions = {name: policy.decide(who, name, on) for name, on in asked.items()}  # type: ignore[arg-type]
    assert not [decision.errors for decision in decisions.values() if decision.errors]
    return {name for name, decision in decisions.items() if decision.allowed}


@pytest.fixture
def shipped(tmp_path: Path) -> Engine:
    return engine(tmp_path / "policies")


@pytest.fixture(params=["web-service", "backup-group", "ci-signer", "operators"])
def with_example(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return engine(tmp_path / "policies", {f"20-{request.param}.cedar": example(f"{request.param}.cedar")})


def with_file(tmp_path: Path, name: str) -> Engine:
    return engine(tmp_path / "policies", {f"20-{name}": example(name)})


def test_a_stranger_may_greet_and_ask_and_nothing_else(shipped: Engine) -> None:
    assert allowed(shipped, caller(1001)) == EVERYBODY
    assert allowed(shipped, caller(0)) == EVERYBODY  # root is nobody special unless the configuration says so


def test_administrators_may_do_everything(shipped: Engine) -> None:
    assert allowed(shipped, administrator()) == {*METHODS, EXPLAIN_OTHERS}


def test_the_deciding_policy_is_named_after_its_file(shipped: Engine) -> None:
    assert shipped.decide(administrator(), "key.sign", key("a/b")).policies == ("10-administrators.everything",)
    denial = shipped.decide(caller(1001), "key.sign", key("a/b"))
    assert (denial.allowed, denial.policies, denial.errors) == (False, (), ())


def test_examples_change_nothing_for_strangers_and_administrators(with_example: Engine) -> None:
    assert allowed(with_example, caller(1001)) == EVERYBODY
    assert allowed(with_example, administrator()) == {*METHODS, EXPLAIN_OTHERS}


def test_the_web_service_encrypts_and_decrypts_with_its_key(tmp_path: Path) -> None:
    policy = with_file(tmp_path, "web-service.cedar")
    assert allowed(policy, WEB) == {*EVERYBODY, "key.encrypt", "key.decrypt"}
    assert allowed(policy, WEB, {**ON, "Key": key("payments/card2")}) == EVERYBODY
    assert allowed(policy, WEB, {**ON, "Key": key("orders/card")}) == EVERYBODY


@pytest.mark.parametrize("unit", [None, "web2.service", "user@1000.service/web.service", "Web.service", "web.service "])
def test_nobody_else_is_the_web_service(tmp_path: Path, unit: str | None) -> None:
    assert allowed(with_file(tmp_path, "web-service.cedar"), caller(33, unit=unit)) == EVERYBODY


def test_the_backup_group_reads_secrets_of_its_vault(tmp_path: Path) -> None:
    policy = with_file(tmp_path, "backup-group.cedar")
    member = caller(1000, groups=(34,))
    assert allowed(policy, member) == {*EVERYBODY, "secret.list", "secret.get"}
    assert allowed(policy, caller(1000, gid=34)) == {*EVERYBODY, "secret.list", "secret.get"}
    other = {**ON, "Secret": secret("orders/db"), "Vault": vault("orders")}
    assert allowed(policy, member, other) == EVERYBODY


def test_the_backup_group_never_deletes_not_even_as_administrator(tmp_path: Path) -> None:
    policy = with_file(tmp_path, "backup-group.cedar")
    both = caller(900, groups=(34,), administrator=True)
    assert allowed(policy, both) == {*METHODS, EXPLAIN_OTHERS} - {"secret.put", "secret.delete"}
    assert policy.decide(both, "secret.delete", secret("payments/db")).policies == ("20-backup-group.never-change",)


def test_operators_watch_and_use_nothing(tmp_path: Path) -> None:
    policy = with_file(tmp_path, "operators.cedar")
    system = {"system.health", "system.info", "system.metrics", "system.history", "system.alerts", "system.events"}
    watching = system | {"backup.list", "hsm.list", "hsm.info", "hsm.status"}
    assert allowed(policy, caller(1000, groups=(35,))) == EVERYBODY | watching


def test_the_runner_signs_with_p256_keys_of_releases(tmp_path: Path) -> None:
    policy = with_file(tmp_path, "ci-signer.cedar")
    signing = {"key.sign", "key.public", "key.describe"}
    assert allowed(policy, RUNNER, {**ON, "Key": key("releases/app", "p-256")}) == EVERYBODY | signing
    for other in (key("releases/app", "ed25519"), key("releases/app"), key("payments/card", "p-256")):
        assert allowed(policy, RUNNER, {**ON, "Key": other}) == EVERYBODY


def test_the_runner_exports_nothing_whatever_else_permits_it(tmp_path: Path) -> None:
    policy = with_file(tmp_path, "ci-signer.cedar")
    powerful = caller(998, unit="ci-runner@7.service", administrator=True)
    export = {
        "key.unwrap",
        "key.data_key",
        "key.derive",
        "key.agree",
        "key.encapsulate",
        "key.decapsulate",
        "secret.get",
    }
    assert {*METHODS, EXPLAIN_OTHERS} - allowed(policy, powerful) == export


def test_names_of_one_thing_do_not_reach_into_another(tmp_path: Path) -> None:
    text = 'permit (principal, action, resource in Vault::"pay") when { principal.uid == 1000 };'
    policy = engine(tmp_path / "policies", {"20-a.cedar": text})
    assert policy.decide(caller(1000), "secret.get", secret("pay/a/b")).allowed
    assert not policy.decide(caller(1000), "secret.get", secret("payments/a")).allowed
    assert not policy.decide(caller(1000), "vault.list", SYSTEM).allowed
