"""Check the parameters of a request against the table of methods, and turn raw values into typed ones.

A plan per method is compiled once from the table; the check itself is one walk over what was sent. No value is
ever part of a message: names of fields only.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from openk.wire.checked import Checked, InvalidArguments, Template, Value
from openk.wire.messages import RawValue, Text
from openk.wire.methods import METHODS, Field, Kind, Method
from openk.wire.rules import ENTRIES_MOST, Rule, make_rule

__all__ = ["ENTRIES_MOST", "ITEMS_MOST", "Checked", "InvalidArguments", "Template", "Value", "check"]

ITEMS_MOST: Final = 256
_QUOTED_MOST: Final = 64

_Entry = tuple[Rule, int, bool]
"""The rule of a field; the most bytes of a bytes field, else -1; whether values of it may be secret."""


def check(method: Method, params: Mapping[str, RawValue]) -> Checked:
    """The arguments of `method`. A memoryview in `params` is passed on as the same object.

    Raises InvalidArguments for unknown and missing fields, wrong kinds, sizes and choices."""
    plan = _PLANS.get(method.name)
    if plan is None or plan.method is not method:
        plan = _Plan(method)
    if plan.item and "items" in params:
        return plan.batch(params)
    return plan.single(params)


class _Plan:
    """What `check` needs to know of one method."""

    __slots__ = ("item", "item_required", "method", "required", "shared", "sizes")

    def __init__(self, method: Method) -> None:
        self.method = method
        self.shared = {field.name: _entry(field) for field in method.fields}
        self.item = {field.name: _entry(field) for field in method.item}
        self.required = tuple(field.name for field in method.fields if field.required)
        self.item_required = tuple(field.name for field in method.item if field.required)
        every = (*method.fields, *method.item)
        self.sizes = {field.name: field.most for field in every if field.kind in (Kind.BYTES, Kind.FIELDS)}

    def single(self, params: Mapping[str, RawValue]) -> Checked:
        values: dict[str, Value] = {}
        item: dict[str, Value] = {}
        plain = True
        for name, raw in params.items():
            entry = self.shared.get(name)
            target = values
            if entry is None:
                entry = self.item.get(name)
                if entry is None:
                    raise self._unknown(name, [*self.shared, *self.item, *(["items"] if self.item else [])])
                target = item
            rule, most, secret = entry
            if type(raw) is memoryview and len(raw) <= most:
                target[name] = raw
            else:
                target[name] = rule(raw)
                plain = plain and not (secret and _has_text(raw))
        _require(self.required, values)
        _require(self.item_required, item)
        return Checked(values, [item], False, plain, self.sizes)

    def batch(self, params: Mapping[str, RawValue]) -> Checked:
        given = dict(params)
        listed = given.pop("items")
        both = next((name for name in given if name in self.item), None)
        if both is not None:
            raise InvalidArguments(f"{both} belongs into each of the items", both)
        if type(listed) is not list or not 1 <= len(listed) <= ITEMS_MOST:
            raise InvalidArguments(f"items must be a list of 1 to {ITEMS_MOST} maps", "items")
        values, plain = self._fill(given, self.shared, self.required)
        items: list[dict[str, Value]] = []
        for index, raw in enumerate(listed):
            if type(raw) is not dict:
                raise InvalidArguments(f"items[{index}] must be a map", "items")
            try:
                item, item_plain = self._fill(raw, self.item, self.item_required)
            except InvalidArguments as error:
                raise InvalidArguments(f"items[{index}]: {error.message}", f"items[{index}].{error.field}") from None
            plain = plain and item_plain
            items.append(item)
        return Checked(values, items, True, plain, self.sizes)

    def _fill(
        self, given: Mapping[str, RawValue], entries: Mapping[str, _Entry], required: tuple[str, ...]
    ) -> tuple[dict[str, Value], bool]:
        found: dict[str, Value] = {}
        plain = True
        for name, raw in given.items():
            entry = entries.get(name)
            if entry is None:
                raise self._unknown(name, [*entries, *(["items"] if entries is self.shared else [])])
            rule, most, secret = entry
            if type(raw) is memoryview and len(raw) <= most:
                found[name] = raw
            else:
                found[name] = rule(raw)
                plain = plain and not (secret and _has_text(raw))
        _require(required, found)
        return found, plain

    def _unknown(self, name: str, known: list[str]) -> InvalidArguments:
        quoted = (name if name.isprintable() else ascii(name)[1:-1])[:_QUOTED_MOST]
        near = get_close_matches(name[:_QUOTED_MOST], known, 1)
        advice = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known) or 'none'}"
        return InvalidArguments(f"{quoted} is not a field of {self.method.name}; {advice}", quoted)


def _entry(field: Field) -> _Entry:
    most = field.most if field.kind is Kind.BYTES else -1
    return make_rule(field), most, field.kind in (Kind.BYTES, Kind.FIELDS)


def _has_text(raw: RawValue) -> bool:
    """Whether a value for a bytes or `fields` field holds the str family, whose bytes no shape may keep."""
    return type(raw) is Text or (type(raw) is dict and any(type(value) is Text for value in raw.values()))


def _require(required: tuple[str, ...], found: Mapping[str, Value]) -> None:
    for name in required:
        if name not in found:
            raise InvalidArguments(f"{name} is missing", name)


_PLANS: Final = {method.name: _Plan(method) for method in METHODS.values()}
