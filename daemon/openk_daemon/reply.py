"""From results to bytes: a response packed by msgpack, or, where a secret is in it, framed by hand in locked memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from openk.wire.writer import Writable, describe_error, lay_out_response, pack_response, total, write
from openk_daemon.call import Answer, Sealed, release
from openk_daemon.hierarchy.refusals import refuse
from openk_daemon.pipeline import Results
from openk_daemon.refusal import Refusal
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool

Form = Literal["pair", "map"]

_SCALARS: Final = frozenset({str, int, bytes, bool, float, type(None)})
"""What most answers are made of: known by their type, for asking whether something is a Mapping is dear."""
_HOLDERS: Final = (Sealed, Mapping, memoryview)


def encode_error(msgid: int, refusal: Refusal, form: Form, request: str) -> bytes:
    described = describe_error(
        refusal.code,
        refusal.message,
        form=form,
        request=request,
        retry_after=refusal.retry_after,
        details=refusal.details,
    )
    return pack_response(msgid, described, None)


def encode(
    msgid: int,
    results: Results,
    batch: bool,  # noqa: FBT001 - hot: positional
    form: Form,
    request: str,
    pool: Pool,
    owner: int,
) -> bytes | Lease:
    """The response. A Lease holds one with secrets, exactly as long as it is; whoever sends it releases it.
    The leases within `results` are given back."""
    first = results[0]
    if not batch and isinstance(first, Refusal):
        return encode_error(msgid, first, form, request)
    for result in results:
        if not isinstance(result, Refusal) and _may_hold_secrets(result):
            break
    else:
        shown = {"results": [_described(result) for result in results]} if batch else first
        return pack_response(msgid, None, shown)  # type: ignore[arg-type]  # nothing Sealed is in it
    try:
        return _encode_sealed(msgid, _writable(results, batch), pool, owner)
    except Exhausted as error:
        return encode_error(msgid, refuse(error), form, request)
    finally:
        for result in results:
            if not isinstance(result, Refusal):
                release(result)


def _may_hold_secrets(answer: Answer) -> bool:
    for value in answer.values():  # noqa: SIM110 - hot: a generator would cost more than what it asks
        if type(value) not in _SCALARS and isinstance(value, _HOLDERS):
            return True
    return False


def _encode_sealed(msgid: int, result: Writable, pool: Pool, owner: int) -> bytes | Lease:
    pieces = lay_out_response(msgid, result)
    if not any(isinstance(piece, memoryview) for piece in pieces):
        return b"".join(pieces)
    lease = pool.lease(total(pieces), owner)
    try:
        write(lease.view, pieces)
    except BaseException:
        lease.release()
        raise
    return lease


def _writable(results: Results, batch: bool) -> Writable:  # noqa: FBT001
    if batch:
        return {"results": [_item(result) for result in results]}
    return _item(results[0])


def _item(result: Answer | Refusal) -> Writable:
    if isinstance(result, Refusal):
        return cast("Writable", _described(result))
    return {name: _value(value) for name, value in result.items()}


def _described(result: Answer | Refusal) -> object:
    """An item's error as it goes over the wire; an answer as it is."""
    if not isinstance(result, Refusal):
        return result
    error = describe_error(
        result.code, result.message, form="map", retry_after=result.retry_after, details=result.details
    )
    return {"error": error}


def _value(value: object) -> Writable:
    if isinstance(value, Sealed):
        return value.lease.view[: value.length]
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, object]", value)
        return {name: _value(part) for name, part in parts.items()}
    return value  # type: ignore[return-value]  # an Answer holds nothing but these
