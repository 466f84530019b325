"""system.seal, system.unseal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from openk_daemon.call import After, Answer, Call, Handler, Outcome
from openk_daemon.hierarchy.refusals import refusing
from openk_daemon.refusal import Refusal
from openk_daemon.seal import Seal

_REASON_MOST: Final = 256


class SealHandlers:
    def __init__(self, seal: Seal, bars: Callable[[], int]) -> None:
        """`bars`: the process id of a tracer for whose sake openk stays sealed, or 0."""
        self._seal = seal
        self._bars = bars

    def handlers(self) -> Mapping[str, Handler]:
        return {"system.seal": refusing(self.seal), "system.unseal": refusing(self.unseal)}

    async def seal(self, call: Call) -> Outcome:
        """Closed once that is durable: whoever hears `sealed` knows that a restart will not undo it."""
        reason = call.arguments.optional_text("reason") or ""
        if not reason.isprintable() or len(reason) > _REASON_MOST:
            raise Refusal("request.invalid", "reason is one line of printable text")
        facts = (("reason", reason),) if reason else ()
        if self._seal.closed:
            return Outcome(({"sealed": True},), facts=facts)
        steps = (After(self._seal.recorded), After(self._seal.close))
        return Outcome(({"sealed": True},), writes=(self._seal.record(closed=True),), facts=facts, after=steps)

    async def unseal(self, call: Call) -> Outcome:
        """Logged in first, then durable, then open. What fails on the way leaves it closed. Raises Refusal hsm.*."""
        del call
        seal = self._seal
        if not seal.closed and not seal.lanes.sealed:
            return Outcome(({"sealed": False, "hsms": []},))
        if tracer := self._bars():
            text = f"process {tracer} traces openkd and would see every key: end it, then unseal"
            raise Refusal("daemon.sealed", text)
        hsms = await seal.lanes.unseal()
        if not seal.closed:  # only another HSM was
            admit = (After(seal.lanes.admit),)
            return Outcome(({"sealed": False, "hsms": hsms},), facts=(("hsms", len(hsms)),), after=admit)
        steps = (After(seal.recorded), After(seal.open, seal.close))
        answer: Answer = {"sealed": False, "hsms": hsms}
        return Outcome((answer,), writes=(seal.record(closed=False),), facts=(("hsms", len(hsms)),), after=steps)
