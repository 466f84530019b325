"""key.encrypt, decrypt, reencrypt, wrap, unwrap, data_key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from openk_daemon.call import Answer, Arguments, Call, Handler, Outcome, Sealed
from openk_daemon.hierarchy.refusals import refuse, refusing
from openk_daemon.keys.ciphers import Ciphers, Input, Plaintext
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.manners import oaep
from openk_daemon.keys.state import KeyState, KeyVersion, require
from openk_daemon.keys.suites import RSA, RSA_OAEP
from openk_daemon.keys.verifying import encrypt_oaep, load_public
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.pending import Pending
from openk_hsm.seam import EMPTY, OpCode, Operation, Purpose
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool

DATA_KEY_USUAL: Final = 32  # bytes, as are the next two
DATA_KEY_LEAST: Final = 16
DATA_KEY_MOST: Final = 64
_ENCRYPT: Final = Purpose.ENCRYPT  # a name, because looking up a member of an Enum costs 60 ns


class CipherHandlers:
    def __init__(self, keyring: Keyring, pool: Pool) -> None:
        self._keyring = keyring
        self._pool = pool
        self._ciphers = Ciphers(keyring, pool)

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "key.encrypt": refusing(self.encrypt),
            "key.decrypt": refusing(self.decrypt),
            "key.reencrypt": refusing(self.reencrypt),
            "key.wrap": refusing(self.wrap),
            "key.unwrap": refusing(self.unwrap),
            "key.data_key": refusing(self.data_key),
        }

    async def encrypt(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        if state.purpose is _ENCRYPT:
            return await self._seal(call, state, version, "ciphertext")
        if state.algorithm in RSA and state.purpose is Purpose.DECRYPT:
            return await self._encrypt_oaep(call, state, version)
        require(state, Purpose.ENCRYPT)
        raise AssertionError("require raises")

    async def wrap(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.WRAP)
        return await self._seal(call, state, version, "wrapped")

    async def decrypt(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        inputs = [_input(item, "ciphertext") for item in call.items]
        client, owner = call.peer.connection, call.peer.owner
        if state.purpose is _ENCRYPT:
            opened = await self._ciphers.open(state, inputs, client, owner)
        else:
            require(state, Purpose.DECRYPT)
            manner = oaep(state.algorithm, call.arguments.optional_text("hash"))
            opened = await self._ciphers.open_oaep(state, version, manner, inputs, client, owner)
        return Outcome([_shown(plaintext, "plaintext") for plaintext in opened], facts=version.facts)

    async def unwrap(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.WRAP)
        inputs = [_input(item, "wrapped") for item in call.items]
        opened = await self._ciphers.open(state, inputs, call.peer.connection, call.peer.owner)
        return Outcome([_shown(plaintext, "output") for plaintext in opened], facts=version.facts)

    async def reencrypt(self, call: Call) -> Outcome:
        """Opened into locked memory and sealed again from there; no plaintext leaves."""
        state, _ = await self._keyring.select(call.arguments)
        require(state, Purpose.ENCRYPT, Purpose.WRAP)
        inputs = [_input(item, "ciphertext") for item in call.items]
        client = call.peer.connection
        opened = await self._ciphers.open(state, inputs, client, call.peer.owner)
        leases = [plaintext[0].lease for plaintext in opened if not isinstance(plaintext, Refusal)]
        try:
            newest = state.newest
            again = [
                (plaintext[0].lease.view, aad)
                for plaintext, (_, aad) in zip(opened, inputs, strict=True)
                if not isinstance(plaintext, Refusal)
            ]
            sealed = iter(await self._ciphers.seal(state, newest, again, client) if again else ())
        finally:
            for lease in leases:
                lease.release()
        results = [
            element if isinstance(element, Refusal) else _sealed(next(sealed), "ciphertext", newest.number)
            for element in opened
        ]
        return Outcome(results, facts=newest.facts)

    async def data_key(self, call: Call) -> Outcome:
        """Random bytes of the HSM's, straight into locked memory; wrapped from there."""
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.WRAP)
        length = call.arguments.integer("length", DATA_KEY_USUAL)
        if not DATA_KEY_LEAST <= length <= DATA_KEY_MOST:
            raise Refusal("key.input_invalid", f"a data key has {DATA_KEY_LEAST} to {DATA_KEY_MOST} bytes")
        drawn = await self._draw(call, length)
        shown = not call.arguments.flag("wrapped_only")
        leases = [element for element in drawn if isinstance(element, Lease)]
        handed = False
        try:
            again: list[Input] = [
                (element.view, item.optional_view("aad") or EMPTY)
                for element, item in zip(drawn, call.items, strict=True)
                if isinstance(element, Lease)
            ]
            sealed = iter(await self._ciphers.seal(state, version, again, call.peer.connection) if again else ())
            results = [
                element if isinstance(element, Refusal) else _data_key(next(sealed), element, version, length, shown)
                for element in drawn
            ]
            handed = True
        finally:
            if not (shown and handed):
                for lease in leases:
                    lease.release()
        if shown:
            _release_unused(drawn, results)
        return Outcome(results, facts=version.facts)

    async def _draw(self, call: Call, length: int) -> list[Lease | Refusal]:
        submit = self._keyring.hierarchy.lane.submit
        waiting: list[tuple[Lease, Pending[bytes | int]] | Refusal] = []
        for _ in call.items:
            try:
                lease = self._pool.lease(length, call.peer.owner)
            except Exhausted as error:
                waiting.append(refuse(error))
                continue
            operation = Operation(OpCode.RANDOM, length, into=lease.view, client=call.peer.connection)
            waiting.append((lease, submit(operation)))
        drawn: list[Lease | Refusal] = []
        for element in waiting:
            if isinstance(element, Refusal):
                drawn.append(element)
                continue
            lease, pending = element
            try:
                complete = await pending == length
            except HsmError as error:
                lease.release()
                drawn.append(refuse(error))
                continue
            if complete:
                drawn.append(lease)
            else:
                lease.release()
                drawn.append(Refusal("hsm.refused"))
        return drawn

    async def _encrypt_oaep(self, call: Call, state: KeyState, version: KeyVersion) -> Outcome:
        """With the public key; but only what the HSM will be able to open again."""
        manner = oaep(state.algorithm, call.arguments.optional_text("hash"))
        able = (await self._keyring.hierarchy.hsms.of_vault(state.vault).info()).mechanisms
        if manner.mechanism.name not in able:
            possible = [name for name, mechanism in RSA_OAEP.items() if mechanism.name in able]
            raise Refusal(
                "key.unsupported",
                f"this HSM opens OAEP with {' or '.join(possible) or 'no hash'}, not with {manner.hash_name}",
                details={"possible": possible},
            )
        if version.verifier is None:
            version.verifier = load_public(version.public or b"")
        results: list[Answer | Refusal] = []
        for item in call.items:
            try:
                if item.optional_view("aad"):
                    raise Refusal("key.input_invalid", "RSA-OAEP takes no AAD")
                block = encrypt_oaep(version.verifier, manner, item.view("input"))
            except Refusal as refusal:
                results.append(refusal)
            else:
                results.append({"ciphertext": block, "version": version.number})
        return Outcome(results, facts=version.facts)

    async def _seal(self, call: Call, state: KeyState, version: KeyVersion, name: str) -> Outcome:
        inputs = [_input(item, "input") for item in call.items]
        sealed = await self._ciphers.seal(state, version, inputs, call.peer.connection)
        number = version.number
        return Outcome([_sealed(element, name, number) for element in sealed], facts=version.facts)


def _input(item: Arguments, name: str) -> Input:
    return item.view(name), item.optional_view("aad") or EMPTY


def _sealed(element: bytes | Refusal, name: str, number: int) -> Answer | Refusal:
    return element if isinstance(element, Refusal) else {name: element, "version": number}


def _shown(plaintext: Plaintext | Refusal, name: str) -> Answer | Refusal:
    return plaintext if isinstance(plaintext, Refusal) else {name: plaintext[0], "version": plaintext[1]}


def _data_key(
    wrapped: bytes | Refusal,
    lease: Lease,
    version: KeyVersion,
    length: int,
    shown: bool,  # noqa: FBT001 - the caller's flag
) -> Answer | Refusal:
    if isinstance(wrapped, Refusal):
        return wrapped
    if not shown:
        return {"wrapped": wrapped, "version": version.number}
    return {"wrapped": wrapped, "plaintext": Sealed(lease, length), "version": version.number}


def _release_unused(drawn: Sequence[Lease | Refusal], results: Sequence[Answer | Refusal]) -> None:
    """A data key that could not be wrapped is given to nobody."""
    for element, result in zip(drawn, results, strict=True):
        if isinstance(element, Lease) and isinstance(result, Refusal):
            element.release()
