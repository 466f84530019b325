"""What a worker's log says of the operations of one daemon, each with the id of the client's request
(openk_hsm.serving): what the device refuses, what is slow, what is done again after a worker's death; at debug all.

    {"event": "operation slow", "request": "71fd0a6e-18", "operation": "sign", "mechanism": "ecdsa", "key": "slot 17",
     "code": "ok", "wait_ms": 0.021, "device_ms": 1204.117, ...}

Never an input, never an answer.
"""

from __future__ import annotations

from math import inf
from typing import Final

from openk_hsm import journal
from openk_hsm.errors import HsmError, InvalidCiphertext, InvalidInput, Unsupported
from openk_hsm.frames import Call
from openk_hsm.roots import AUDIT_KEY, ROOT_DATA, ROOT_KW, ROOT_MAC, name_of
from openk_hsm.seam import Mechanism, OpCode
from openk_hsm.serving import request_id

SLOW: Final = 1.0
"""Seconds, as the daemon's log.slow_seconds is unless somebody sets it."""
EACH: Final = -1.0
"""A bound that every operation is beyond."""
_ROOTS: Final = {root.slot: name_of(root)[0] for root in (ROOT_KW, ROOT_DATA, ROOT_MAC, AUDIT_KEY)}
_CALLERS: Final = (InvalidCiphertext, InvalidInput, Unsupported)
"""Refusals for which the device is not to blame."""
_OF_SLOTS: Final = frozenset({"load_resident", "load_wrapped", "unload"})
_CODES: Final = {int(code): code.name.lower() for code in OpCode}


class OperationLog:
    """`bound`: seconds beyond which the loop calls `done`, so that it need not ask anything else of an operation that
    goes well. It is low for what was done before."""

    def __init__(self, run: int, slow: float) -> None:
        """`run`: the daemon's. `slow`: seconds; 0: nothing is."""
        self._run = run
        self._slow = slow or inf
        self._deaths = 0
        self._labels: dict[int, str] = dict(_ROOTS)
        self.bound = self._slow

    def begin(self, deaths: int) -> None:
        """A message has come; so many workers died under what is in it."""
        self._deaths = deaths
        self.bound = EACH if deaths or journal.debugging() else self._slow

    def name(self, slot: int, label: str) -> None:
        """What the token calls the key in that slot; forgotten when it is empty."""
        if label:
            self._labels[slot] = label
        elif slot not in _ROOTS:
            self._labels.pop(slot, None)

    def hot(self, request: int, code: int, mechanism: Mechanism, slot: int) -> dict[str, object]:
        """What a hot operation is, and for which request."""
        what = self._asked(request) | {"operation": _CODES.get(code, str(code))}
        if mechanism is not Mechanism.NONE:
            what["mechanism"] = mechanism.name.lower()
        if slot:
            what["key"] = self._key(slot)
        return what

    def cold(self, call: Call) -> dict[str, object]:
        """What a call is. Of its arguments only which key is loaded."""
        what = self._asked(call.request) | {"operation": call.method}
        if call.method in _OF_SLOTS and call.arguments and isinstance(call.arguments[0], int):
            what["key"] = self._key(call.arguments[0])
        return what

    def done(self, what: dict[str, object], wait: float, device: float) -> None:
        """It took so many seconds in the device, more than `bound`, after `wait` in the worker's hands."""
        if device > self._slow:
            level, event = "warning", "operation slow"
        elif self._deaths:
            level, event = "info", "operation done again"
        else:
            level, event = "debug", "operation done"
        journal.log(level, event, **what, code="ok", **self._times(wait, device))

    def refused(self, what: dict[str, object], error: HsmError, wait: float, device: float) -> None:
        """The device, or a check before it, has refused: whoever asked hears so."""
        level = "info" if isinstance(error, _CALLERS) else "warning"
        self._tell(level, "operation refused", what, error, self._times(wait, device))

    def trouble(self, what: dict[str, object], error: HsmError, wait: float, device: float) -> None:
        """The device is in trouble, or the token has gone: this process is of no further use."""
        self._tell("error", "device trouble", what, error, self._times(wait, device))

    def _tell(self, level: str, event: str, what: dict[str, object], error: HsmError, times: dict[str, object]) -> None:
        journal.log(level, event, **what, code=error.code, device=error.device, **times, text=str(error))

    def _asked(self, request: int) -> dict[str, object]:
        return {"request": request_id(request, self._run)} if request else {}

    def _key(self, slot: int) -> str:
        return self._labels.get(slot) or f"slot {slot}"

    def _times(self, wait: float, device: float) -> dict[str, object]:
        times: dict[str, object] = {"wait_ms": round(1000 * wait, 3), "device_ms": round(1000 * device, 3)}
        return times | {"deaths": self._deaths} if self._deaths else times
