"""audit.*: the signed head of the log, proofs against it, and its entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openk_daemon.audit.note_key import NoteKey
from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, Ledger, UnknownEntry
from openk_daemon.call import Answer, Call, Handler, Outcome, Plain
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.refusal import Refusal

USUAL: Final = 20
"""Entries that audit.tail shows when no limit is given."""


class AuditHandlers:
    def __init__(self, ledger: Ledger, key: NoteKey, origin: str) -> None:
        """`key`: the audit key. `origin`: the log's name."""
        self._ledger = ledger
        self._key = {
            "public": key.spki,
            "algorithm": key.algorithm.value,
            "verifier_key": key.verifier_key(origin),
        }

    def handlers(self) -> Mapping[str, Handler]:
        named = {"audit.head": self.head, "audit.prove": self.prove, "audit.tail": self.tail}
        return {name: refusing(_admitting(handler)) for name, handler in named.items()}

    async def head(self, _call: Call) -> Outcome:
        head = await self._ledger.head()
        answer: Answer = {
            "checkpoint": head.checkpoint,
            "signed_size": head.signed_size,
            "size": head.size,
            **self._key,
        }
        return Outcome((answer,))

    async def prove(self, call: Call) -> Outcome:
        proof = await self._ledger.prove(call.arguments.integer("index"), call.arguments.optional_integer("old_size"))
        answer: Answer = {
            "index": proof.index,
            "size": proof.size,
            "hashes": [node.hex() for node in proof.hashes],
            "checkpoint": proof.checkpoint,
        }
        return Outcome((answer,))

    async def tail(self, call: Call) -> Outcome:
        limit = call.arguments.integer("limit", USUAL)
        first = call.arguments.optional_integer("first")
        if first is None:
            first = max(0, (await self._ledger.head()).size - limit)
        entries = await self._ledger.tail(first, limit)
        shown: list[Plain] = [{"index": first + place, "entry": entry} for place, entry in enumerate(entries)]
        return Outcome(({"entries": shown},))


def _admitting(handler: Handler) -> Handler:
    async def checked(call: Call) -> Outcome:
        try:
            return await handler(call)
        except (AuditUnavailable, AuditDamaged, UnknownEntry) as error:
            raise Refusal(error.code) from error

    return checked
