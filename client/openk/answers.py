"""Answers as plain values: what a reply's raw values become once they leave the receive buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from openk.secret import Secret
from openk.wire.messages import RawValue, Text
from openk.wire.methods import METHODS, Kind

Value: TypeAlias = "bool | int | float | str | bytes | Secret | list[Value] | Answer | None"
Answer = dict[str, Value]
"""A result: text as str; bytes as bytes where they are public and as Secret where they are not."""

Keep = Callable[[memoryview], bytes | Secret]


class Misfit(Exception):
    """An answer is not what the table of methods says; the argument names the field."""


_PUBLIC: Final = {
    method.name: frozenset(
        field.name for field in method.result if field.kind in (Kind.BYTES, Kind.FIELDS) and not field.secret
    )
    for method in METHODS.values()
}
_SECRETIVE: Final = {method.name: any(field.secret for field in method.result) for method in METHODS.values()}


def tells_secrets(method: str) -> bool:
    """Whether answers of `method` may hold secrets; assumed of a method the table does not know."""
    return _SECRETIVE.get(method, True)


def decode_result(method: str, raw: RawValue) -> Value:
    """A result as plain values. What the table does not call public becomes Secret."""
    return _decode(raw, _PUBLIC.get(method, frozenset()), public=not tells_secrets(method))


def decode_error(raw: RawValue) -> Value:
    """An error as plain values: there are no secrets in errors."""
    return _decode(raw, frozenset(), public=True)


def _decode(raw: RawValue, names: frozenset[str], *, public: bool) -> Value:
    if isinstance(raw, memoryview):
        return bytes(raw) if public else _moved(raw)
    if isinstance(raw, Text):
        return str(raw.view, "utf-8", "replace")
    if isinstance(raw, dict):
        return {name: _decode(value, names, public=public or name in names) for name, value in raw.items()}
    if isinstance(raw, list):
        return [_decode(value, names, public=public) for value in raw]
    return raw


def _moved(raw: memoryview) -> Secret:
    """Out of the receive buffer. Zeros take its place there and, being as many, in the vector registers that the copy
    went through: what is left in those may be spilled to the stack, where nothing wipes it."""
    secret = Secret(raw)
    raw[:] = bytes(len(raw))
    return secret


class Reply:
    """Typed access to one result map. Every method raises Misfit where the answer is not as the table says."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Value) -> None:
        if not isinstance(answer, dict):
            raise Misfit("the result")
        self._answer = answer

    @property
    def answer(self) -> Answer:
        return self._answer

    def has(self, name: str) -> bool:
        return self._answer.get(name) is not None

    def text(self, name: str) -> str:
        value = self._answer.get(name)
        if not isinstance(value, str):
            raise Misfit(name)
        return value

    def integer(self, name: str) -> int:
        value = self._answer.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Misfit(name)
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if self.has(name) else None

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name) if self.has(name) else None

    def flag(self, name: str) -> bool:
        value = self._answer.get(name)
        if not isinstance(value, bool):
            raise Misfit(name)
        return value

    def data(self, name: str) -> bytes:
        """Public bytes."""
        value = self._answer.get(name)
        if not isinstance(value, bytes):
            raise Misfit(name)
        return value

    def secret(self, name: str) -> Secret:
        value = self._answer.get(name)
        if not isinstance(value, Secret):
            raise Misfit(name)
        return value

    def secrets(self, name: str) -> dict[str, Secret]:
        """A map of secrets."""
        found = self.map(name)
        secrets = {entry: value for entry, value in found.items() if isinstance(value, Secret)}
        if len(secrets) != len(found):
            raise Misfit(name)
        return secrets

    def map(self, name: str) -> Answer:
        value = self._answer.get(name)
        if not isinstance(value, dict):
            raise Misfit(name)
        return value

    def replies(self, name: str) -> list[Reply]:
        """A list of maps."""
        value = self._answer.get(name)
        if not isinstance(value, list):
            raise Misfit(name)
        return [Reply(element) for element in value]

    def texts(self, name: str) -> list[str]:
        value = self._answer.get(name)
        if not isinstance(value, list) or not all(isinstance(element, str) for element in value):
            raise Misfit(name)
        return [element for element in value if isinstance(element, str)]

    def integers(self, name: str) -> list[int]:
        value = self._answer.get(name)
        if not isinstance(value, list):
            raise Misfit(name)
        found = [element for element in value if isinstance(element, int) and not isinstance(element, bool)]
        if len(found) != len(value):
            raise Misfit(name)
        return found
