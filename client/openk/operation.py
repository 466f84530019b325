"""One call as a value: what to send, and how to type what comes back. No I/O: the shells run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from openk.answers import Answer, Misfit, Reply, Value
from openk.errors import Error, Unintelligible, read_error
from openk.secret import Buffer, view_of
from openk.wire.methods import METHODS
from openk.wire.writer import Writable

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Argument = None | bool | int | float | str | Buffer | Mapping[str, Buffer] | list[str] | list[Mapping[str, Buffer]]
"""A parameter; None is left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation(Generic[R_co]):
    """`params` are in the order of the wire, whose bytes values are views of what the caller gave (not copied:
    they must not change until the call returns)."""

    method: str
    params: dict[str, Writable]
    convert: Callable[[Reply], R_co]

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when it is not known if it was done."""
        row = METHODS.get(self.method)
        return row is not None and not row.changes

    def finish(self, result: Value) -> R_co:
        """The typed result. Raises Unintelligible."""
        try:
            return self.convert(Reply(result))
        except Misfit as misfit:
            raise Unintelligible(
                "daemon.unintelligible", f"The answer to {self.method} is not as the protocol says: {misfit}."
            ) from None


def operate(method: str, convert: Callable[[Reply], R], /, **arguments: Argument) -> Operation[R]:
    """An operation. Public values go first and bytes last: frames that differ in payloads only then begin alike,
    which the daemon is quick to read."""
    return Operation(method, order(arguments), convert)


def operate_many(
    method: str, convert: Callable[[Reply], R], items: Iterable[Mapping[str, object]], /, **shared: Argument
) -> Operation[list[R | Error]]:
    """The batch form: for each item, in order, its result or its error."""
    params = order(shared)
    listed = [order(item) for item in items]
    params["items"] = listed

    def each(reply: Reply) -> list[R | Error]:
        results = reply.replies("results")
        if len(results) != len(listed):
            raise Misfit("results")
        return [
            read_error(result.answer["error"]) if "error" in result.answer else convert(result) for result in results
        ]

    return Operation(method, params, each)


def operate_untyped(method: str, params: Mapping[str, object]) -> Operation[Answer]:
    """Any method, known to the table or not, with the answer as it came."""
    return Operation(method, order(params), lambda reply: reply.answer)


def order(arguments: Mapping[str, object]) -> dict[str, Writable]:
    """The arguments that are given, as they can be written: plain values first, then those that hold bytes."""
    plain: dict[str, Writable] = {}
    payload: dict[str, Writable] = {}
    for name, value in arguments.items():
        if value is None:
            continue
        if isinstance(value, str | int | float):
            plain[name] = value
        else:
            payload[name] = _writable(name, value)
    return plain | payload


def _writable(name: str, value: object) -> Writable:
    if isinstance(value, bytes | bytearray | memoryview):
        return view_of(cast("Buffer", value))
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        if not all(isinstance(key, str) for key in entries):
            raise TypeError(f"{name}: the names in a map must be str")
        return order({str(key): entry for key, entry in entries.items()})
    if isinstance(value, list | tuple):
        return [_writable(name, element) for element in cast("Iterable[object]", value)]
    raise TypeError(f"{name}: {type(value).__name__} cannot be sent")
