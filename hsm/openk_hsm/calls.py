"""The cold calls of a lane: rare, in msgpack, each with a replay class and a deadline of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from openk_hsm import frames
from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError
from openk_hsm.link import Cold
from openk_hsm.pending import Pending
from openk_hsm.seam import Generated, KeySpec, Notice, ObjectInfo, Replay, Wrapper
from openk_hsm.serving import SERVING

T = TypeVar("T")


class Calls:
    """What is made of a method and its arguments, and of the answer. How it reaches a worker is the heir's `queue`."""

    _limits: Limits

    def queue(self, call: Cold) -> None:
        """Send it to a worker, now or later, and settle it. Nothing is raised."""
        raise NotImplementedError

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        arguments = (frames.spec_to_wire(spec), wrapper.kw.slot, wrapper.mac.slot, context)
        deadline = self._limits.generate_deadline
        return self._call("generate", arguments, frames.generated_from_wire, Replay.PURE, deadline, wrapper)

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:
        arguments = (frames.spec_to_wire(spec), label, id_)
        deadline = self._limits.generate_deadline
        return self._call("generate_resident", arguments, frames.generated_from_wire, Replay.JOURNALED, deadline)

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return self._call("destroy_resident", (label, id_), bool, Replay.PURE, self._limits.deadline)

    def objects(self) -> Pending[Sequence[ObjectInfo]]:
        return self._call("objects", (), frames.objects_from_wire, Replay.PURE, self._limits.deadline)

    def attest(self, label: str, id_: bytes) -> Pending[Sequence[bytes]]:
        return self._call("attest", (label, id_), frames.certificates_from_wire, Replay.PURE, self._limits.deadline)

    def notices(self, after: int) -> Pending[Sequence[Notice]]:
        return self._call("notices", (after,), frames.notices_from_wire, Replay.PURE, self._limits.deadline)

    def _call(
        self,
        method: str,
        arguments: tuple[object, ...],
        parse: Callable[[object], T],
        replay: Replay,
        deadline: float,
        wrapper: Wrapper | None = None,
    ) -> Pending[T]:
        answer: Pending[T] = Pending()
        call = Cold(method, arguments, replay, deadline, deadline, wrapper=wrapper, request=SERVING.request)

        def finish() -> None:
            try:
                answer.resolve(parse(call.pending.result()))
            except HsmError as error:
                answer.fail(error)

        call.pending.when_settled(finish)
        self.queue(call)
        return answer
