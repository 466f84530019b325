"""secret.put, get, list, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from openk_daemon.call import After, Call, Handler, Outcome, Plain
from openk_daemon.hierarchy.hierarchy import Hierarchy, rfc3339
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.hierarchy.turns import Turns
from openk_daemon.refusal import Refusal
from openk_daemon.secrets.cabinet import Cabinet, Change
from openk_memory.pool import Pool

LIST_USUAL: Final = 100
FIELDS_MOST: Final = 1000


class SecretHandlers:
    def __init__(self, hierarchy: Hierarchy, pool: Pool) -> None:
        self._cabinet = Cabinet(hierarchy, pool)
        self._turns = Turns()

    def keep(self, versions: int) -> None:
        """How many versions of a secret stay when it is put, from now on; 0: all."""
        self._cabinet.kept_versions = versions

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "secret.put": refusing(self.put),
            "secret.get": refusing(self.get),
            "secret.list": refusing(self.list_secrets),
            "secret.delete": refusing(self.delete),
        }

    async def put(self, call: Call) -> Outcome:
        """The values are encrypted where they were received."""
        arguments = call.arguments
        name = arguments.text("secret")
        value, fields = arguments.optional_view("value"), arguments.fields("fields")
        if (value is None) == (fields is None):
            raise Refusal("request.invalid", "a secret is one `value` or a map of `fields`")
        names: tuple[str, ...] | None = None
        values: Sequence[memoryview] = (value,) if value is not None else ()
        if fields is not None:
            if not 1 <= len(fields) <= FIELDS_MOST:
                raise Refusal("request.invalid", f"a secret has 1 to {FIELDS_MOST} fields")
            names, values = tuple(fields), tuple(fields.values())
        await self._turns.take(name)
        with self._turns.kept(name):
            change = await self._cabinet.put(name, names, values, arguments.optional_integer("expected"))
        return self._changed(name, change, {"secret": name, "version": change.count}, "version")

    async def get(self, call: Call) -> Outcome:
        arguments = call.arguments
        name, number = arguments.text("secret"), arguments.optional_integer("version")
        version, unlocked = await self._cabinet.get(name, number, call.peer.owner)
        facts = (("version", version),)
        created = rfc3339(unlocked.created)
        if unlocked.names is None:
            (value,) = unlocked.values
            return Outcome(({"value": value, "version": version, "created": created},), facts=facts)
        fields = dict(zip(unlocked.names, unlocked.values, strict=True))
        return Outcome(({"fields": fields, "version": version, "created": created},), facts=facts)

    async def list_secrets(self, call: Call) -> Outcome:
        arguments = call.arguments
        vault = arguments.text("vault")
        bodies = await self._cabinet.page(
            vault, arguments.optional_text("after"), arguments.integer("limit", LIST_USUAL)
        )
        secrets: Sequence[Plain] = [
            {"secret": f"{vault}/{body.name}", "version": body.current, "created": rfc3339(body.created)}
            for body in bodies
        ]
        return Outcome(({"secrets": secrets},))

    async def delete(self, call: Call) -> Outcome:
        arguments = call.arguments
        name = arguments.text("secret")
        await self._turns.take(name)
        with self._turns.kept(name):
            change = await self._cabinet.delete(name, arguments.optional_integer("version"))
        return self._changed(name, change, {"secret": name, "deleted": change.count}, "deleted")

    def _changed(self, name: str, change: Change, answer: Mapping[str, str | int], fact: str) -> Outcome:
        def apply() -> None:
            if change.head is None:
                self._cabinet.drop(name)
            else:
                self._cabinet.keep(change.head)

        # Forgotten when the commit failed: the next request reads from the store what is really there.
        steps = (After(apply, lambda: self._cabinet.drop(name)), self._turns.ending(name))
        return Outcome((answer,), change.writes, ((fact, change.count),), steps)
