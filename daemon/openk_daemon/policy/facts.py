"""What Cedar is told of a request: the principal, the action and the resource as entities of openk.cedarschema."""

from __future__ import annotations

import json
from typing import Final

from openk_daemon.identity.caller import Caller
from openk_daemon.policy.decision import Resource
from openk_daemon.policy.names import Names

SYSTEM: Final = {"type": "System", "id": "openk"}


def request(caller: Caller, action: str, resource: Resource) -> dict[str, object]:
    """A Cedar request. The context is empty: nothing that changes by itself (such as the time) is a fact, which is
    why every decision may be cached until the next reload."""
    return {
        "principal": {"type": "User", "id": str(caller.uid)},
        "action": {"type": "Action", "id": action},
        "resource": _uid(resource),
        "context": "{}",
    }


def entities(caller: Caller, resource: Resource, names: Names) -> str:
    """The entities of a request as Cedar JSON: the user, the resource and what the resource is in."""
    found = [_user(caller, names), *_resource(resource)]
    return json.dumps(found)


def _user(caller: Caller, names: Names) -> dict[str, object]:
    groups = {caller.gid, *caller.groups}
    attributes: dict[str, object] = {
        "uid": caller.uid,
        "gid": caller.gid,
        "groups": sorted(groups),
        "group_names": sorted(names.groups[gid] for gid in groups if gid in names.groups),
        "administrator": caller.administrator,
    }
    optional = {"name": names.users.get(caller.uid), "unit": caller.unit, "executable": caller.executable}
    attributes.update((name, value) for name, value in optional.items() if value is not None)
    return {"uid": {"type": "User", "id": str(caller.uid)}, "attrs": attributes, "parents": []}


def _resource(resource: Resource) -> list[dict[str, object]]:
    system: dict[str, object] = {"uid": SYSTEM, "attrs": {}, "parents": []}
    if resource.kind == "System":
        return [system]
    vault, _, name = resource.name.partition("/")
    holder: dict[str, object] = {"uid": {"type": "Vault", "id": vault}, "attrs": {"name": vault}, "parents": [SYSTEM]}
    if resource.kind == "Vault":
        return [system, holder]
    attributes = {"vault": vault, "name": name, **dict(resource.attributes)}
    inside: dict[str, object] = {"uid": _uid(resource), "attrs": attributes, "parents": [holder["uid"]]}
    return [system, holder, inside]


def _uid(resource: Resource) -> dict[str, str]:
    return SYSTEM if resource.kind == "System" else {"type": resource.kind, "id": resource.name}
