"""The one place that touches cedarpy. Pure computation on values that were parsed before.

cedarpy's traps, and what is done about them here: a `forbid` that errors is skipped and leaves an Allow, so only an
Allow without errors allows; a syntax error and an unknown action give "NoDecision" and no exception, which is no
Allow either; positional policy ids shift with every edit, so each policy gets an id of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import cedarpy

from openk_daemon.identity.caller import Caller
from openk_daemon.policy.decision import Decision, Resource
from openk_daemon.policy.facts import entities, request
from openk_daemon.policy.names import Names
from openk_daemon.policy.statements import POLICY_MOST, is_deep, is_deep_schema

Tree = Mapping[str, object]
"""A policy as Cedar's JSON policy format has it."""

_ERROR_MOST: Final = 400
_DEEP: Final = "nested too deeply: use [...].contains(...) in place of a long chain of ||, or two policies"


class Mistake(ValueError):
    """What is wrong with a policy or a schema, in Cedar's words."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One policy. `id` is FILE.ID with the file's name without suffix and the `@id` annotation, or the policy's
    number in the file, from 1, where it has none."""

    id: str
    file: str
    line: int
    tree: Tree = field(repr=False)


def parse_schema(text: str) -> cedarpy.Schema:
    """Raises Mistake."""
    if is_deep_schema(text):
        raise Mistake("nested too deeply")
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise Mistake(str(error)) from error


def parse_policy(text: str, schema: cedarpy.Schema) -> Tree:
    """The one policy in `text`, checked against the schema. Raises Mistake."""
    if is_deep(text):
        raise Mistake(_DEEP)
    if len(text) > POLICY_MOST:
        raise Mistake(f"longer than {POLICY_MOST} characters: make groups of what it lists, or several policies")
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise Mistake(str(error)) from error
    except RecursionError as error:
        raise Mistake(_DEEP) from error
    if parsed["templates"]:
        raise Mistake("a policy with ?principal or ?resource is a template, which permits nothing: name them")
    (tree,) = parsed["staticPolicies"].values()
    try:
        _policy_set({"": tree})  # its reader allows 128 levels, which the parser does not mind
    except Mistake as error:
        raise Mistake(_DEEP) from error
    validation = cedarpy.validate_policies(text, schema)  # pyright: ignore[reportUnknownMemberType] - bare dicts
    if not validation.validation_passed:
        raise Mistake("; ".join(error.error.removeprefix("for policy `policy0`, ") for error in validation.errors))
    return cast("Tree", tree)


class Judge:
    """A parsed, immutable policy set that answers questions. About 100 microseconds an answer."""

    def __init__(self, statements: Sequence[Statement], schema: cedarpy.Schema, names: Names) -> None:
        """The statements' trees come from `parse_policy` and their ids are unique. Raises Mistake."""
        self._schema = schema
        self._names = names
        self._set = _policy_set({statement.id: statement.tree for statement in statements})
        self._scopes = _policy_set({statement.id: _only_action(statement.tree) for statement in statements})

    def decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        """Never raises: any error makes it a denial that names the error."""
        return self._ask(self._set, caller, action, resource)

    def concerning(self, caller: Caller, action: str, resource: Resource) -> frozenset[str]:
        """Ids of the policies whose scope includes the action, whether they apply otherwise or not."""
        return frozenset(self._ask(self._scopes, caller, action, resource).policies)

    def _ask(self, policies: cedarpy.PolicySet, caller: Caller, action: str, resource: Resource) -> Decision:
        try:
            facts = entities(caller, resource, self._names)
            question = request(caller, action, resource)
            answer = cedarpy.is_authorized(question, policies, facts, self._schema)  # pyright: ignore[reportUnknownMemberType] - bare dicts
        except Exception as error:  # noqa: BLE001 - whatever goes wrong while deciding is a denial (invariant 4)
            return Decision(allowed=False, policies=(), errors=(f"{type(error).__name__} while deciding",))
        errors = tuple(_shorten(error) for error in answer.diagnostics.errors)
        allowed = answer.decision is cedarpy.Decision.Allow and not errors
        # With errors, Cedar's reasons are those of an answer that is not given: they would mislead.
        reasons = () if errors else tuple(sorted(answer.diagnostics.reasons))
        return Decision(allowed=allowed, policies=reasons, errors=errors)


def _policy_set(trees: Mapping[str, Tree]) -> cedarpy.PolicySet:
    try:
        return cedarpy.PolicySet.from_json_str(
            json.dumps({"staticPolicies": trees, "templates": {}, "templateLinks": []})
        )
    except ValueError as error:
        raise Mistake(str(error)) from error


def _only_action(tree: Tree) -> Tree:
    anybody = {"op": "All"}
    return {"effect": "permit", "principal": anybody, "action": tree["action"], "resource": anybody, "conditions": []}


def _shorten(error: str) -> str:
    """Without the entities, which Cedar repeats in full when it cannot use them."""
    if error.startswith("failed to parse entities"):
        error = error[error.rfind("]: ") + 3 :]
    return error if len(error) <= _ERROR_MOST else f"{error[:_ERROR_MOST]}..."
