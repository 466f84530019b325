"""Errors of the rooms below, turned into refusals in one place."""

from __future__ import annotations

from functools import wraps

from openk_daemon.call import Call, Handler, Outcome
from openk_daemon.hierarchy.records import RecordError
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import StoreError
from openk_hsm.errors import HsmError, InvalidInput
from openk_memory.errors import Exhausted

Below = HsmError | StoreError | Exhausted | RecordError

_EXHAUSTED_RETRY = 1.0  # seconds: locked memory is given back as replies leave

_UNFIT = "the input does not fit the algorithm, or with its answer exceeds what an HSM takes (hsm.handoff_bytes)"


def refuse(error: Below) -> Refusal:
    """The refusal a client sees. Codes are the errors' own; their texts stay in the log, for which it is the cause."""
    refusal = _translate(error)
    refusal.__cause__ = error
    return refusal


def _translate(error: Below) -> Refusal:
    if isinstance(error, InvalidInput):
        return Refusal(error.code, _UNFIT)
    if isinstance(error, HsmError):
        return Refusal(error.code, retry_after=error.retry_after)
    if isinstance(error, StoreError):
        return Refusal(error.code)
    if isinstance(error, RecordError):
        return Refusal("store.foreign", "a record was written by another version of openk")
    if not error.possible:
        return Refusal("request.too_large", "the answer does not fit the locked memory of this daemon")
    return Refusal("daemon.overloaded", "no locked memory is free", retry_after=_EXHAUSTED_RETRY)


def damaged(what: str) -> Refusal:
    """A record does not open, or is not where it belongs. `what` names the record's kind."""
    return Refusal("store.damaged", f"the {what} record was changed, moved or truncated", details={"record": what})


def refusing(handler: Handler) -> Handler:
    """The same handler, raising nothing but Refusal (and what is a mistake in openk)."""

    @wraps(handler)
    async def checked(call: Call) -> Outcome:
        try:
            return await handler(call)
        except (HsmError, StoreError, Exhausted, RecordError) as error:
            raise refuse(error) from error

    return checked
