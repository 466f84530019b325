"""HMACs with clients' keys: in the HSM, or with a cached key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.keys import cached
from openk_daemon.keys.keyring import Keyring
from openk_daemon.keys.state import KeyState, KeyVersion
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError
from openk_hsm.seam import EMPTY, Buffer, OpCode, Operation

_MAC: Final = OpCode.MAC


class Macs:
    def __init__(self, keyring: Keyring) -> None:
        self._openings = keyring.openings
        self._submit = keyring.hierarchy.lane.submit

    async def mac(
        self, state: KeyState, version: KeyVersion, inputs: Sequence[Buffer], client: int
    ) -> list[bytes | Refusal]:
        """Whole HMACs."""
        mechanism, size = state.hmac
        handle = version.handle
        if handle is None:
            material = await self._openings.material(state, version, len(inputs))
            return [cached.mac(state.algorithm, material, data) for data in inputs]
        submit = self._submit
        waiting = [
            submit(Operation(_MAC, size, handle, mechanism, data, EMPTY, EMPTY, None, client)) for data in inputs
        ]
        macs: list[bytes | Refusal] = []
        for pending in waiting:
            try:
                answer = await pending
            except HsmError as error:
                macs.append(refuse(error))
            else:
                macs.append(answer if isinstance(answer, bytes) else Refusal("internal"))
        return macs
