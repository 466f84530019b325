"""Why a decision is as it is, and which single fact would turn it. Each change is tried, so each sentence is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from openk_daemon.identity.caller import Caller
from openk_daemon.policy.decision import Explanation, Resource
from openk_daemon.policy.loader import PolicySet
from openk_daemon.policy.mentions import Mentions, mentions

TRIALS_MOST: Final = 64
"""Changes that are tried for one explanation, about 0.1 ms each."""


@dataclass(frozen=True, slots=True)
class Change:
    """`what` completes "It would be allowed if ..."."""

    what: str
    caller: Caller
    resource: Resource


def explain(set_: PolicySet, caller: Caller, action: str, resource: Resource) -> Explanation:
    """Asks up to TRIALS_MOST + 2 questions of the set. Never raises."""
    decision = set_.judge.decide(caller, action, resource)
    concerning = set_.judge.concerning(caller, action, resource)
    spoken = mentions(statement.tree for statement in set_.statements if statement.id in concerning)
    answer = "refused" if decision.allowed else "allowed"
    flips = [
        f"It would be {answer} if {change.what}."
        for change in islice(changes(set_, spoken, caller, resource), TRIALS_MOST)
        if set_.judge.decide(change.caller, action, change.resource).allowed is not decision.allowed
    ]
    return Explanation(decision, flips, facts(set_, caller, resource))


def facts(set_: PolicySet, caller: Caller, resource: Resource) -> dict[str, str]:
    """What was known, for people: each fact as text, "unknown" where the kernel or the daemon does not tell."""
    groups = sorted({caller.gid, *caller.groups})
    found = {
        "user": _named(caller.uid, set_.names.users),
        "groups": ", ".join(_named(gid, set_.names.groups) for gid in groups),
        "unit": caller.unit or "unknown",
        "executable": caller.executable or "unknown",
        "administrator": "yes" if caller.administrator else "no",
        "resource": f"{resource.kind} {resource.name or 'openk'}",
    }
    if resource.kind == "Key":
        known = dict(resource.attributes)
        found.update({name: known.get(name, "unknown") for name in ("algorithm", "purpose", "protection")})
    return found


def changes(set_: PolicySet, spoken: Mentions, caller: Caller, resource: Resource) -> Iterator[Change]:
    """Single-fact changes worth a trial: those to what the policies speak of, the likeliest first."""
    was = "were not" if caller.administrator else "were"
    yield Change(
        f"the caller {was} an administrator", replace(caller, administrator=not caller.administrator), resource
    )
    yield from _elsewhere(spoken, caller, resource)
    yield from _units(spoken, caller, resource)
    yield from _groups(set_, spoken, caller, resource)
    yield from _users(set_, spoken, caller, resource)
    yield from _attributes(spoken, caller, resource)
    for text in spoken.texts("principal", "executable"):
        yield Change(f"the caller's program were {text}", replace(caller, executable=text), resource)
    if caller.executable is not None:
        yield Change("the caller's program were unknown", replace(caller, executable=None), resource)


def _units(spoken: Mentions, caller: Caller, resource: Resource) -> Iterator[Change]:
    for unit in spoken.texts("principal", "unit"):
        if unit != caller.unit:
            like = "a unit like " if "*" in unit else "the unit "
            yield Change(f"the caller ran in {like}{unit}", replace(caller, unit=unit), resource)
    if caller.unit is not None:
        yield Change("the caller ran in no unit", replace(caller, unit=None), resource)


def _groups(set_: PolicySet, spoken: Mentions, caller: Caller, resource: Resource) -> Iterator[Change]:
    by_name = (set_.names.gid(name) for name in spoken.texts("principal", "group_names"))
    spoken_of = {*spoken.numbers("principal", "groups"), *(gid for gid in by_name if gid is not None)}
    for gid in sorted(spoken_of):
        group = _named(gid, set_.names.groups)
        if gid not in {caller.gid, *caller.groups}:
            changed = replace(caller, groups=(*caller.groups, gid))
            yield Change(f"the caller were in the group {group}", changed, resource)
        elif gid != caller.gid:
            changed = replace(caller, groups=tuple(other for other in caller.groups if other != gid))
            yield Change(f"the caller were not in the group {group}", changed, resource)
    for gid in spoken.numbers("principal", "gid"):
        if gid != caller.gid:
            group = _named(gid, set_.names.groups)
            yield Change(f"the caller's primary group were {group}", replace(caller, gid=gid), resource)


def _users(set_: PolicySet, spoken: Mentions, caller: Caller, resource: Resource) -> Iterator[Change]:
    """Another uid alone; what comes with it (groups) is another fact."""
    names = spoken.texts("principal", "name")
    uids = {
        *spoken.numbers("principal", "uid"),
        *(int(id_) for id_ in spoken.entities["User"] if id_.isdecimal()),
        *(uid for uid, name in set_.names.users.items() if name in names),
    }
    for uid in sorted(uids - {caller.uid}):
        yield Change(f"the caller were the user {_named(uid, set_.names.users)}", replace(caller, uid=uid), resource)
    if caller.uid in uids:
        stranger = next(uid for uid in range(65533, 0, -1) if uid not in uids)
        yield Change("the caller were another user", replace(caller, uid=stranger), resource)


def _elsewhere(spoken: Mentions, caller: Caller, resource: Resource) -> Iterator[Change]:
    """The same name in another vault, another name in the vault, or exactly the thing that is spoken of."""
    if resource.kind == "System":
        return
    kind = resource.kind.lower()
    vault, _, name = resource.name.partition("/")
    vaults = {*spoken.entities["Vault"], *spoken.texts("resource", "vault")} - {vault}
    if resource.kind == "Vault":
        for other in sorted(vaults | {*spoken.texts("resource", "name")} - {vault}):
            yield Change(f"the vault were {other}", caller, replace(resource, name=other))
        return
    for other in sorted(vaults):
        yield Change(f"the {kind} were in the vault {other}", caller, replace(resource, name=f"{other}/{name}"))
    exact = {*spoken.entities[resource.kind], *(f"{vault}/{text}" for text in spoken.texts("resource", "name"))}
    for whole in sorted(exact - {resource.name}):
        yield Change(f"the {kind} were {whole}", caller, replace(resource, name=whole))
    everywhere = {vault} & {*spoken.entities["Vault"], *spoken.texts("resource", "vault")}
    if everywhere or resource.name in exact:
        yield Change(f"the {kind} were in another vault", caller, replace(resource, name=f"-/{name}"))


def _attributes(spoken: Mentions, caller: Caller, resource: Resource) -> Iterator[Change]:
    if resource.kind != "Key":
        return
    known = dict(resource.attributes)
    for attribute in ("algorithm", "purpose", "protection"):
        for text in spoken.texts("resource", attribute):
            if known.get(attribute) != text:
                changed = replace(resource, attributes=tuple({**known, attribute: text}.items()))
                yield Change(f"the key's {attribute} were {text}", caller, changed)


def _named(number: int, names: Mapping[int, str]) -> str:
    name = names.get(number)
    return f"{number} ({name})" if name else str(number)
