"""Policy folders and callers for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from openk_daemon.identity.caller import Caller, Peer
from openk_daemon.identity.peer import audit_fragment
from openk_daemon.policy.decision import Decision, Explanation, Resource
from openk_daemon.policy.engine import Engine
from openk_daemon.policy.names import Names
from openk_daemon.policy.shipped import SCHEMA, shipped_policies

ADMINISTRATOR = 900
SYSTEM = Resource("System", "")
NAMES = Names(
    users={0: "root", ADMINISTRATOR: "olga", 1000: "alice", 1001: "bob"},
    groups={0: "root", 34: "backup", 35: "operators", 1000: "alice", 1001: "bob"},
    member={0: (0,), ADMINISTRATOR: (ADMINISTRATOR,), 1000: (1000, 34), 1001: (1001,)},
)
"""Users and groups that tests see, whatever the machine has."""


def names() -> Names:
    return NAMES


def policy_folder(where: Path, files: Mapping[str, str] | None = None, *, shipped: bool = True) -> Path:
    """A new folder `where` with the schema, the shipped set unless told otherwise, and `files` by name."""
    where.mkdir(mode=0o755)
    source = shipped_policies()
    taken = [source / SCHEMA, *(sorted(source.glob("*.cedar")) if shipped else [])]
    texts = {path.name: path.read_text("utf-8") for path in taken} | dict(files or {})
    for name, text in texts.items():
        (where / name).write_text(text, "utf-8")
        (where / name).chmod(0o644)
    return where


def engine(
    where: Path, files: Mapping[str, str] | None = None, *, shipped: bool = True, decisions: int = 1024
) -> Engine:
    """An engine on a new folder, with one administrator: ADMINISTRATOR."""
    return Engine(policy_folder(where, files, shipped=shipped), {ADMINISTRATOR}, decisions=decisions, names=names)


def example(name: str) -> str:
    """The text of a shipped example."""
    return (shipped_policies() / "examples" / name).read_text("utf-8")


def caller(
    uid: int = 1000,
    *,
    gid: int | None = None,
    groups: tuple[int, ...] = (),
    unit: str | None = None,
    executable: str | None = None,
    administrator: bool = False,
) -> Caller:
    return Caller(uid, uid if gid is None else gid, groups, unit, None, executable, administrator)


def peer(who: Caller, pid: int = 4242, connection: int = 1) -> Peer:
    return Peer(who, pid, connection, audit_fragment(who, pid))


def administrator() -> Caller:
    return caller(ADMINISTRATOR, administrator=True)


def key(name: str, algorithm: str | None = None, **attributes: str) -> Resource:
    known = {"algorithm": algorithm, **attributes}
    return Resource("Key", name, tuple((attribute, text) for attribute, text in known.items() if text is not None))


def secret(name: str) -> Resource:
    return Resource("Secret", name)


def vault(name: str) -> Resource:
    return Resource("Vault", name)


class Everything:
    """A Policy that allows everybody everything: for tests of other rooms."""

    epoch = 1

    def decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        return Decision(allowed=True, policies=("test.everything",))

    def explain(self, caller: Caller, action: str, resource: Resource) -> Explanation:
        return Explanation(self.decide(caller, action, resource), ())
