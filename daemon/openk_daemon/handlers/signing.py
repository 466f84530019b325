"""key.sign, verify, mac, verify_mac, derive, agree, encapsulate, decapsulate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Final

from openk_daemon.call import Answer, Arguments, Call, Handler, Outcome, Sealed
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.keys.agreements import Agreements
from openk_daemon.keys.derivations import Derivations
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.macs import Macs
from openk_daemon.keys.manners import Manner, signing
from openk_daemon.keys.signers import Signers
from openk_daemon.keys.state import KeyState, require
from openk_daemon.keys.verifying import load_public, verify
from openk_daemon.refusal import Refusal
from openk_hsm.seam import Purpose
from openk_memory.pool import Pool

DERIVED_USUAL: Final = 32  # bytes, as is the next
DERIVED_MOST: Final = 4096
_MAC: Final = Purpose.MAC  # a name, because looking up a member of an Enum costs 60 ns


class SigningHandlers:
    """What proves something: signatures and MACs."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._signers = Signers(keyring)
        self._macs = Macs(keyring)

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "key.sign": refusing(self.sign),
            "key.verify": refusing(self.verify),
            "key.mac": refusing(self.mac),
            "key.verify_mac": refusing(self.verify_mac),
        }

    async def sign(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        manner = _manner(state, call.arguments)
        inputs = [item.view("input") for item in call.items]
        signatures = await self._signers.sign(state, version, manner, inputs, call.peer.connection)
        return Outcome(_answers(signatures, "signature", version.number), facts=version.facts)

    async def verify(self, call: Call) -> Outcome:
        """In the daemon, with the public key."""
        state, version = await self._keyring.select(call.arguments)
        manner = _manner(state, call.arguments)
        if version.verifier is None:
            version.verifier = load_public(version.public or b"")
        results: list[Answer | Refusal] = []
        for item in call.items:
            try:
                verify(version.verifier, manner, item.view("input"), item.view("signature"))
            except Refusal as refusal:
                results.append(refusal)
            else:
                results.append({"valid": True, "version": version.number})
        return Outcome(results, facts=version.facts)

    async def mac(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        if state.purpose is not _MAC:
            require(state, _MAC)
        inputs = [item.view("input") for item in call.items]
        macs = await self._macs.mac(state, version, inputs, call.peer.connection)
        return Outcome(_answers(macs, "mac", version.number), facts=version.facts)

    async def verify_mac(self, call: Call) -> Outcome:
        """Computed again and compared in constant time."""
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.MAC)
        inputs = [item.view("input") for item in call.items]
        macs = await self._macs.mac(state, version, inputs, call.peer.connection)
        results: list[Answer | Refusal] = []
        for mac, item in zip(macs, call.items, strict=True):
            if isinstance(mac, Refusal):
                results.append(mac)
            elif compare_digest(mac, item.view("mac")):
                results.append({"valid": True, "version": version.number})
            else:
                results.append(Refusal("key.mac_invalid"))
        return Outcome(results, facts=version.facts)


class SharingHandlers:
    """What gives the client a secret: derivation, Diffie-Hellman, ML-KEM."""

    def __init__(self, keyring: Keyring, pool: Pool) -> None:
        self._keyring = keyring
        self._derivations = Derivations(keyring, pool)
        self._agreements = Agreements(keyring, pool)

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "key.derive": refusing(self.derive),
            "key.agree": refusing(self.agree),
            "key.encapsulate": refusing(self.encapsulate),
            "key.decapsulate": refusing(self.decapsulate),
        }

    async def derive(self, call: Call) -> Outcome:
        arguments = call.arguments
        state, version = await self._keyring.select(arguments)
        require(state, Purpose.DERIVE)
        length = arguments.integer("length", DERIVED_USUAL)
        if not 1 <= length <= DERIVED_MOST:
            raise Refusal("key.input_invalid", f"1 to {DERIVED_MOST} bytes are derived at once")
        client, owner = call.peer.connection, call.peer.owner
        inputs = [(_bytes(item, "label"), _bytes(item, "context")) for item in call.items]
        if arguments.text("mode", "sp800-108-counter") == "hkdf-expand":
            if any(label for label, _ in inputs):
                raise Refusal("key.input_invalid", "HKDF-Expand has no label: put it into the context")
            infos = [context for _, context in inputs]
            derived = await self._derivations.expand(state, version, infos, length, client, owner)
        else:
            derived = await self._derivations.counter(state, version, inputs, length, client, owner)
        return Outcome(_answers(derived, "derived", version.number), facts=version.facts)

    async def agree(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.AGREE)
        peers = [item.view("public") for item in call.items]
        shared = await self._agreements.agree(state, version, peers, call.peer.connection, call.peer.owner)
        return Outcome(_answers(shared, "shared", version.number), facts=version.facts)

    async def encapsulate(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.ENCAPSULATE)
        made = self._agreements.encapsulate(version, len(call.items), call.peer.owner)
        results: list[Answer | Refusal] = [
            element
            if isinstance(element, Refusal)
            else {"ciphertext": element[0], "shared": element[1], "version": version.number}
            for element in made
        ]
        return Outcome(results, facts=version.facts)

    async def decapsulate(self, call: Call) -> Outcome:
        state, version = await self._keyring.select(call.arguments)
        require(state, Purpose.ENCAPSULATE)
        ciphertexts = [item.view("ciphertext") for item in call.items]
        opened = await self._agreements.decapsulate(state, version, ciphertexts, call.peer.owner)
        return Outcome(_answers(opened, "shared", version.number), facts=version.facts)


def _manner(state: KeyState, arguments: Arguments) -> Manner:
    """How to sign. Raises Refusal(key.unsuitable, key.input_invalid)."""
    manner = state.manner
    if manner is None:
        require(state, Purpose.SIGN)
        raise AssertionError("require raises")
    values = arguments.values
    if "hash" in values or "padding" in values or "prehashed" in values:
        hash_, padding = arguments.optional_text("hash"), arguments.optional_text("padding")
        return signing(state.algorithm, hash_, padding, arguments.flag("prehashed"))
    return manner


def _bytes(item: Arguments, name: str) -> bytes:
    """Labels and contexts are no secrets."""
    view = item.optional_view(name)
    return b"" if view is None else bytes(view)


def _answers(
    elements: Sequence[bytes | Refusal] | Sequence[Sealed | Refusal], name: str, number: int
) -> list[Answer | Refusal]:
    return [element if isinstance(element, Refusal) else {name: element, "version": number} for element in elements]
