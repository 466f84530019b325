"""system.*, random.*, policy.*, audit.*"""

from __future__ import annotations

from typing import Literal

from openk.answers import Answer, Misfit, Reply
from openk.operation import Operation, operate
from openk.results import (
    Alert,
    Alerts,
    AuditEntry,
    AuditHead,
    AuditProof,
    ConfigChange,
    ConfigChanges,
    Course,
    Event,
    Events,
    Health,
    Hello,
    History,
    PolicyEpoch,
    PolicyExplanation,
    SealState,
    Setting,
)
from openk.secret import Buffer, Secret


def hello(errors: Literal["map", "pair"] = "map") -> Operation[Hello]:
    """Who the daemon says this caller is. The client has said hello already when it connected."""
    return operate(
        "system.hello",
        lambda reply: Hello(reply.text("version"), reply.map("caller"), reply.map("limits")),
        errors=errors,
    )


def ping(echo: Buffer | None = None) -> Operation[bytes | None]:
    """Answered at once, with `echo`."""
    return operate("system.ping", lambda reply: reply.data("echo") if reply.has("echo") else None, echo=echo)


def methods() -> Operation[list[Answer]]:
    """The table of methods as the daemon has it."""
    return operate("system.methods", lambda reply: [entry.answer for entry in reply.replies("methods")])


def health() -> Operation[Health]:
    """State of the daemon and its parts."""
    return operate("system.health", lambda reply: Health(reply.text("status"), reply.map("components")))


def info() -> Operation[Answer]:
    """Versions, HSM lanes, store, uptime."""
    return operate("system.info", lambda reply: reply.map("info"))


def metrics() -> Operation[str]:
    """Metrics in the Prometheus text format."""
    return operate("system.metrics", lambda reply: reply.text("text"))


def history(span: Literal["hour", "week"] | None = None, *, signal: str | None = None) -> Operation[History]:
    """What the daemon's signals were: the last hour (default) every 10 s, or the last week every 5 min."""
    return operate("system.history", _history, span=span, signal=signal)


def alerts() -> Operation[Alerts]:
    """The alerts the daemon raises by itself."""
    return operate(
        "system.alerts",
        lambda reply: Alerts([_alert(row) for row in reply.replies("alerts")], reply.text("cursor")),
    )


def events(after: str | None = None, *, wait: int | None = None) -> Operation[Events]:
    """The event stream behind a cursor; all that the daemon keeps when left out. `wait`: seconds until there is
    something, less than the client's own patience. A client's `follow` asks on by itself."""
    return operate("system.events", _events, after=after, wait=wait)


def config() -> Operation[list[Setting]]:
    """The configuration in force, key by key."""
    return operate(
        "system.config",
        lambda reply: [
            Setting(row.text("key"), row.answer.get("value"), row.text("origin"), row.flag("live"))
            for row in reply.replies("settings")
        ],
    )


def config_changes() -> Operation[ConfigChanges]:
    """What the daemon's configuration files say that is not in force, and what is wrong in them."""
    return operate("system.config_changes", _read_changes)


def _read_changes(reply: Reply) -> ConfigChanges:
    changes = [
        ConfigChange(
            row.text("key"), row.answer.get("running"), row.answer.get("files"), row.text("origin"), row.flag("live")
        )
        for row in reply.replies("changes")
    ]
    return ConfigChanges(changes, reply.texts("mistakes"))


def log_level(category: str | None = None, level: str | None = None) -> Operation[Answer]:
    """Level by category; with `level`, after it was set for `category` or for all: until the next reload or start."""
    return operate("system.log_level", lambda reply: reply.map("levels"), category=category, level=level)


def seal(reason: str | None = None) -> Operation[SealState]:
    """Wipe every key, log the HSMs out; from then on the answer is daemon.sealed. `reason` goes to the audit log."""
    return operate("system.seal", lambda reply: SealState(reply.flag("sealed"), []), reason=reason)


def unseal() -> Operation[SealState]:
    """Have the workers log in anew and serve again. Takes seconds."""
    return operate("system.unseal", lambda reply: SealState(reply.flag("sealed"), reply.texts("hsms")))


def random_bytes(length: int | None = None) -> Operation[Secret]:
    """Random bytes from the HSM: 1 to 4096; 32 when left out."""
    return operate("random.bytes", lambda reply: reply.secret("bytes"), length=length)


def explain(
    action: str, resource: str | None = None, *, uid: int | None = None, unit: str | None = None
) -> Operation[PolicyExplanation]:
    """Whether `action` (a method's name) on `resource` would be allowed, why, and what would change it."""
    return operate("policy.explain", _explanation, action=action, resource=resource, uid=uid, unit=unit)


def reload() -> Operation[PolicyEpoch]:
    """Load the policy files again, all or nothing."""
    return operate("policy.reload", lambda reply: PolicyEpoch(reply.integer("epoch"), reply.integer("policies")))


def head() -> Operation[AuditHead]:
    """The signed checkpoint of the audit log."""
    return operate("audit.head", _head)


def prove(index: int, *, old_size: int | None = None) -> Operation[AuditProof]:
    """Proof that entry `index` is in the log; with `old_size`, that the log only grew since it had that size."""
    return operate("audit.prove", _proof, index=index, old_size=old_size)


def tail(first: int | None = None, *, limit: int | None = None) -> Operation[list[AuditEntry]]:
    """Entries from index `first`; the newest ones when left out."""
    return operate("audit.tail", _entries, first=first, limit=limit)


_MILLION = 1_000_000


def _history(reply: Reply) -> History:
    return History(reply.integer("seconds"), reply.integer("end"), [_course(row) for row in reply.replies("signals")])


def _course(row: Reply) -> Course:
    return Course(
        row.text("signal"),
        row.text("unit"),
        row.text("summary"),
        _parted(row, "now"),
        *(_all_parted(row, name) for name in ("values", "lows", "highs")),
    )


def _alert(row: Reply) -> Alert:
    return Alert(
        row.text("alert"),
        row.text("severity"),
        row.flag("raised"),
        row.optional_integer("since"),
        row.text("signal"),
        _parted(row, "value"),
        row.integer("raise_at") / _MILLION,
        row.integer("clear_at") / _MILLION,
        row.integer("for_seconds"),
        row.text("text"),
    )


def _events(reply: Reply) -> Events:
    return Events(
        [_event(row) for row in reply.replies("events")],
        reply.text("cursor"),
        reply.integer("lost"),
        reply.flag("restarted"),
    )


def _event(row: Reply) -> Event:
    return Event(
        row.integer("number"),
        row.text("kind"),
        row.integer("at"),
        row.text("severity"),
        row.text("subject"),
        _parted(row, "value"),
        row.text("text"),
    )


def _parted(row: Reply, name: str) -> float | None:
    """Millionths as what they are of."""
    value = row.optional_integer(name)
    return None if value is None else value / _MILLION


def _all_parted(row: Reply, name: str) -> list[float | None]:
    values = row.answer.get(name, [])
    if not isinstance(values, list):
        raise Misfit(name)
    return [_parted(Reply({name: value}), name) for value in values]


def _explanation(reply: Reply) -> PolicyExplanation:
    return PolicyExplanation(
        reply.flag("allowed"), reply.texts("policies"), reply.texts("errors"), reply.texts("flips"), reply.map("facts")
    )


def _head(reply: Reply) -> AuditHead:
    return AuditHead(
        reply.text("checkpoint"),
        reply.integer("signed_size"),
        reply.integer("size"),
        reply.data("public"),
        reply.text("algorithm"),
        reply.text("verifier_key"),
    )


def _proof(reply: Reply) -> AuditProof:
    return AuditProof(reply.integer("index"), reply.integer("size"), reply.texts("hashes"), reply.text("checkpoint"))


def _entries(reply: Reply) -> list[AuditEntry]:
    return [AuditEntry(entry.integer("index"), entry.text("entry")) for entry in reply.replies("entries")]
