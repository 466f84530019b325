"""system.*: what a client learns of the daemon itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache

from openk.wire.methods import METHODS, Field, Method
from openk_daemon.call import Call, Handler, Outcome, Plain
from openk_daemon.observe.health import Health
from openk_daemon.observe.metrics import Metrics

Facts = Callable[[], Mapping[str, Plain]]


class SystemHandlers:
    def __init__(self, version: str, limits: Mapping[str, int], health: Health, metrics: Metrics, facts: Facts) -> None:
        """`limits`: what a client should know of them. `facts`: the answer of system.info, read at each call."""
        self._version = version
        self._limits = dict(limits)
        self._health = health
        self._metrics = metrics
        self._facts = facts

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "system.hello": self.hello,
            "system.ping": self.ping,
            "system.methods": self.methods,
            "system.health": self.health,
            "system.info": self.info,
            "system.metrics": self.metrics,
        }

    async def hello(self, call: Call) -> Outcome:
        caller = call.peer.caller
        shown: dict[str, Plain] = {
            "uid": caller.uid,
            "gid": caller.gid,
            "groups": list(caller.groups),
            "pid": call.peer.pid,
            "unit": caller.unit,
            "executable": caller.executable,
            "administrator": caller.administrator,
        }
        return Outcome(({"version": self._version, "caller": shown, "limits": self._limits},))

    async def ping(self, call: Call) -> Outcome:
        echo = call.arguments.optional_view("echo")
        return Outcome(({} if echo is None else {"echo": bytes(echo)},))

    async def methods(self, _call: Call) -> Outcome:
        return Outcome(({"methods": _described()},))

    async def health(self, _call: Call) -> Outcome:
        report = self._health.report()
        components: dict[str, Plain] = {
            name: {"state": str(finding.state), "reason": finding.reason} for name, finding in report.components.items()
        }
        return Outcome(({"status": str(report.status), "components": components},))

    async def info(self, _call: Call) -> Outcome:
        return Outcome(({"info": dict(self._facts())},))

    async def metrics(self, _call: Call) -> Outcome:
        return Outcome(({"text": self._metrics.expose()},))


@cache
def _described() -> list[dict[str, Plain]]:
    return [_method(method) for method in METHODS.values()]


def _method(method: Method) -> dict[str, Plain]:
    return {
        "name": method.name,
        "summary": method.summary,
        "on": method.on,
        "changes": method.changes,
        "fields": [_field(field) for field in method.fields],
        "item": [_field(field) for field in method.item],
        "result": [_field(field) for field in method.result],
    }


def _field(field: Field) -> dict[str, Plain]:
    return {**asdict(field), "kind": str(field.kind), "choices": list(field.choices)}
