"""The key methods: making, listing and describing here; using them in `ciphering` and `signing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from openk_daemon.call import After, Answer, Call, Handler, Outcome, Plain
from openk_daemon.handlers.ciphering import CipherHandlers
from openk_daemon.handlers.signing import SharingHandlers, SigningHandlers
from openk_daemon.hierarchy.hierarchy import rfc3339
from openk_daemon.hierarchy.records import RecordError
from openk_daemon.hierarchy.refusals import refuse, refusing
from openk_daemon.hierarchy.turns import Turns
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.making import Fresh, Making
from openk_daemon.keys.parameters import Parameters
from openk_daemon.keys.residents import Residents
from openk_daemon.keys.state import KeyState, KeyVersion
from openk_daemon.keys.survey import Survey
from openk_daemon.keys.verifying import pem
from openk_daemon.refusal import Refusal
from openk_daemon.rotation import Due
from openk_daemon.store.seam import StoreError
from openk_hsm.errors import HsmError
from openk_hsm.pending import drive
from openk_hsm.seam import Algorithm, Purpose
from openk_memory.errors import Exhausted
from openk_memory.pool import Pool

LIST_USUAL: Final = 100


class KeyHandlers:
    """`handlers` has every method `key.*`. `recover` runs at start before the first request, `clear` now and then."""

    def __init__(self, keyring: Keyring, pool: Pool) -> None:
        self._keyring = keyring
        self._residents = Residents(keyring.hierarchy)
        self._making = Making(keyring, pool, self._residents)
        self._ciphering = CipherHandlers(keyring, pool)
        self._signing = SigningHandlers(keyring)
        self._sharing = SharingHandlers(keyring, pool)
        self.survey = Survey(keyring)
        """Which keys are due for rotation."""
        self._turns = Turns()
        self.recover = self._residents.recover
        self.clear = self._residents.clear

    def allow(self, parameters: Parameters) -> None:
        """What new keys may be, from now on."""
        self._making.parameters = parameters

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "key.create": refusing(self.create),
            "key.list": refusing(self.list_keys),
            "key.describe": refusing(self.describe),
            "key.public": refusing(self.public),
            "key.rotate": refusing(self.rotate),
            **self._ciphering.handlers(),
            **self._signing.handlers(),
            **self._sharing.handlers(),
        }

    def loaded_resource(self, name: str) -> tuple[tuple[str, str], ...] | None:
        """What policies may read of a key that is at hand; None when `describe_resource` must look it up."""
        state = self._keyring.loaded(name)
        return None if state is None else state.attributes

    async def describe_resource(self, name: str) -> tuple[tuple[str, str], ...]:
        """Algorithm, purpose and protection of a key; nothing where there is no such key. Raises Refusal: asked before
        the decision, so what goes wrong here is told like what goes wrong in a handler."""
        try:
            return await self._keyring.attributes(name)
        except (HsmError, StoreError, Exhausted, RecordError) as error:
            raise refuse(error) from error

    async def create(self, call: Call) -> Outcome:
        arguments = call.arguments
        name, purpose = arguments.text("key"), arguments.optional_text("purpose")
        await self._turns.take(name)
        with self._turns.kept(name):
            fresh = await self._making.draft(
                name,
                Algorithm(arguments.text("algorithm")),
                None if purpose is None else Purpose(purpose),
                arguments.optional_text("protection"),
            )
        return self._made(fresh, [fresh.version])

    async def rotate(self, call: Call) -> Outcome:
        name = call.arguments.text("key")
        await self._turns.take(name)
        with self._turns.kept(name):
            state = await self._keyring.find(name)
            versions = await self._keyring.all_versions(state)
            fresh = await self._making.draft_version(state)
        return self._made(fresh, [*versions, fresh.version])

    async def renew(self, name: str, wanted: Callable[[KeyState], bool]) -> Outcome | None:
        """`rotate` for openkd itself: None where the key, once its turn has come, is no more `wanted`: somebody else
        rotated it meanwhile. Raises Refusal, HsmError, StoreError, Exhausted, RecordError."""
        await self._turns.take(name)
        with self._turns.kept(name):
            state = await self._keyring.find(name)
            if wanted(state):
                fresh = await self._making.draft_version(state)
                return self._made(fresh, [fresh.version])
        self._turns.give(name)
        return None

    async def list_keys(self, call: Call) -> Outcome:
        arguments = call.arguments
        vault, bodies = await self._keyring.page(
            arguments.text("vault"), arguments.optional_text("after"), arguments.integer("limit", LIST_USUAL)
        )
        dues = await self.survey.dues(vault, bodies)
        keys: Sequence[Plain] = [
            {
                "key": f"{vault.name}/{body.name}",
                "algorithm": body.algorithm,
                "purpose": body.purpose,
                "protection": body.protection,
                "version": body.newest,
                **_told(due),
            }
            for body, due in zip(bodies, dues, strict=True)
        ]
        return Outcome(({"keys": keys},))

    async def describe(self, call: Call) -> Outcome:
        state = await self._keyring.find(call.arguments.text("key"))
        return Outcome((self._description(state, await self._keyring.all_versions(state)),))

    async def public(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        if version.public is None:
            raise Refusal("key.unsuitable", f"{state.algorithm.value} keys have no public half")
        answer = {
            "version": version.number,
            "algorithm": state.algorithm.value,
            "public": version.public,
            "pem": pem(version.public),
        }
        return Outcome((answer,), facts=version.facts)

    def _made(self, fresh: Fresh, versions: list[KeyVersion]) -> Outcome:
        """The key is used by name from the moment its records are durable, not before."""
        state, made = fresh.state, fresh.made
        revision = state.revision

        def apply() -> None:
            state.revision = revision + 1
            state.versions[fresh.version.number] = fresh.version
            state.newest = fresh.version
            self._keyring.keep(state)

        def forget() -> None:
            if made is not None:
                drive(self._residents.undo(made, state.vault.hsm), lambda _undone, _error: None)

        steps = (After(apply, forget), self._turns.ending(state.name))
        facts = (("algorithm", state.algorithm.value), ("protection", state.protection.value), *fresh.version.facts)
        return Outcome((self._description(state, versions),), fresh.writes, facts, steps)

    def _description(self, state: KeyState, versions: list[KeyVersion]) -> Answer:
        """`versions`: in order, the newest of which may be about to become `state`'s."""
        return {
            "key": state.name,
            "algorithm": state.algorithm.value,
            "purpose": state.purpose.value,
            "protection": state.protection.value,
            "version": versions[-1].number,
            "versions": [
                {
                    "version": version.number,
                    "created": rfc3339(version.created),
                    "uses": None if version.usage is None else version.usage.uses,
                }
                for version in versions
            ],
            **_told(self.survey.of_version(state, versions[-1])),
        }


def _told(due: Due | None) -> Mapping[str, Plain]:
    """What an answer says of when a key is to be rotated: nothing where no rule concerns it."""
    if due is None:
        return {}
    at = None if due.at is None else rfc3339(due.at)
    return {"due": {"at": at, "rule": due.rule, "action": "rotate" if due.acts else "tell"}}
