"""policy.explain, policy.reload."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Final

from openk.wire.methods import METHODS
from openk_daemon.call import After, Answer, Call, Handler, Outcome
from openk_daemon.hierarchy.names import check_vault, split
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.identity.caller import Caller
from openk_daemon.policy.decision import Resource
from openk_daemon.policy.engine import Engine
from openk_daemon.policy.loader import EXPLAIN_OTHERS
from openk_daemon.refusal import Refusal
from openk_hsm.pending import Pending

Attributes = tuple[tuple[str, str], ...]
Describe = Callable[[str], Coroutine[Pending[object], None, Attributes]]
"""Algorithm, purpose and protection of a key by name; nothing where there is no such key."""

_SYSTEM: Final = Resource("System", "")
_KEY_FACTS: Final = frozenset({"algorithm", "purpose", "protection"})


class PolicyHandlers:
    def __init__(self, engine: Engine, describe: Describe) -> None:
        """`describe` is KeyHandlers.describe_resource."""
        self._engine = engine
        self._describe = describe

    def handlers(self) -> Mapping[str, Handler]:
        return {"policy.explain": refusing(self.explain), "policy.reload": refusing(self.reload)}

    async def explain(self, call: Call) -> Outcome:
        """Raises Refusal policy.denied where it is about somebody else and "policy.explain_others" is not permitted."""
        action = _action(call.arguments.text("action"))
        subject = self._subject(call)
        resource = await self._resource(action, call.arguments.optional_text("resource"))
        explanation = self._engine.explain(subject, action, resource)
        facts = dict(explanation.facts)
        if resource.kind == "Key" and not self._engine.decide(call.peer.caller, "key.describe", resource).allowed:
            # Asking must not tell what describing would refuse to tell.
            facts = {name: fact for name, fact in facts.items() if name not in _KEY_FACTS}
        answer: Answer = {
            "allowed": explanation.decision.allowed,
            "policies": list(explanation.decision.policies),
            "errors": list(explanation.decision.errors),
            "flips": list(explanation.flips),
            "facts": facts,
        }
        return Outcome((answer,), facts=(("asked", action), ("allowed", int(explanation.decision.allowed))))

    async def reload(self, _call: Call) -> Outcome:
        """The new set is in force once its record is durable. Raises Refusal policy.invalid, policy.lockout; then
        the running set stays."""
        candidate = self._engine.prepare()
        count = len(candidate.set.statements)
        facts = (("epoch", candidate.epoch), ("policies", count), ("sha256", candidate.set.digest))
        adopt = After(lambda: self._engine.adopt(candidate))
        return Outcome(({"epoch": candidate.epoch, "policies": count},), facts=facts, after=(adopt,))

    def _subject(self, call: Call) -> Caller:
        """Whom the question is about. Raises Refusal policy.denied."""
        asking = call.peer.caller
        uid, unit = call.arguments.optional_integer("uid"), call.arguments.optional_text("unit")
        subject = asking
        if uid is not None and uid != asking.uid:
            subject = self._user(uid)
        if unit is not None and unit != subject.unit:
            subject = replace(subject, unit=unit or None, invocation=None, executable=None)
        if subject != asking and not self._engine.decide(asking, EXPLAIN_OTHERS, _SYSTEM).allowed:
            message = (
                f'Asking about others needs the action "{EXPLAIN_OTHERS}"; about yourself, leave uid and unit out.'
            )
            raise Refusal("policy.denied", message)
        return subject

    def _user(self, uid: int) -> Caller:
        """That user as this host's files describe it, outside of any unit."""
        groups = self._engine.names().member.get(uid, (uid,))
        return Caller(uid, groups[0], groups, None, None, None, self._engine.is_administrator(uid))

    async def _resource(self, action: str, name: str | None) -> Resource:
        """What the action would act on. Raises Refusal request.invalid."""
        kind = METHODS[action].on if action in METHODS else "System"
        if kind == "System":
            if name:
                raise Refusal("request.invalid", f"{action} acts on the system: leave resource out")
            return _SYSTEM
        if not name:
            shape = "VAULT" if kind == "Vault" else "VAULT/NAME"
            raise Refusal("request.invalid", f"{action} acts on a {kind.lower()}: name it as resource, {shape}")
        if kind == "Vault":
            return Resource(kind, check_vault(name))
        split(name)
        return Resource(kind, name, await self._describe(name) if kind == "Key" else ())


def _action(name: str) -> str:
    known = (*METHODS, EXPLAIN_OTHERS)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    raise Refusal("request.invalid", f"no such action{f': did you mean {near[0]}?' if near else ''}")
