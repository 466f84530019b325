"""Lanes that misbehave on purpose, around a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from openk_hsm.errors import HsmError
from openk_hsm.lane_health import LaneHealth
from openk_hsm.pending import Pending, resolved
from openk_hsm.seam import Generated, KeyHandle, KeySpec, Lane, Notice, ObjectInfo, Operation, TokenInfo, Wrapper

T = TypeVar("T")


class SteeredLane:
    """Passes everything on, unless told otherwise.

    `fail`: asked before each hot operation; an error it returns is the answer. `held`: while True answers are kept
    back until `release`. `operations`: what was submitted, in order. `unloaded`: slots the daemon gave up. `information`: what to say of the
    token instead.
    """

    def __init__(self, lane: Lane) -> None:
        self.name = lane.name
        self._lane = lane
        self.fail: Callable[[Operation], HsmError | None] = lambda _operation: None
        self.fail_resident: HsmError | None = None
        self.information: TokenInfo | None = None
        self.held = False
        self.operations: list[Operation] = []
        self.unloaded: list[int] = []
        self._kept: list[Callable[[], None]] = []

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        self.operations.append(operation)
        if not self.held:
            return self._answer(operation)
        self._kept.append(lambda: self._answer(operation))  # type: ignore[arg-type]  # the value is not used
        return operation.pending

    def _answer(self, operation: Operation) -> Pending[bytes | int]:
        error = self.fail(operation)
        if error is not None:
            operation.pending.fail(error)
            return operation.pending
        return self._lane.submit(operation)

    def release(self) -> int:
        """Answer what is kept back, in order; how many answers that were."""
        kept, self._kept = self._kept, []
        for step in kept:
            step()
        return len(kept)

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        return self._lane.generate(spec, wrapper, context)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        pending = self._lane.generate_resident(spec, label, id_)
        if self.fail_resident is None:
            return pending
        lost: Pending[Generated] = Pending()  # it was made, but the answer never came
        lost.fail(self.fail_resident)
        return lost

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return self._lane.destroy_resident(label, id_)

    def attest(self, label: str, id_: bytes) -> Pending[Sequence[bytes]]:
        return self._lane.attest(label, id_)

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        return self._lane.notices(after)

    def objects(self) -> Pending[Sequence[ObjectInfo]]:
        return self._lane.objects()

    def info(self) -> Pending[TokenInfo]:
        return self._lane.info() if self.information is None else resolved(self.information)

    def unload(self, key: KeyHandle) -> None:
        self.unloaded.append(key.slot)
        self._lane.unload(key)

    def health(self) -> LaneHealth:
        return self._lane.health()
