"""One rule per kind of field: a function that turns a raw value into a typed one, or raises InvalidArguments."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Final

from openk.wire.checked import InvalidArguments, Value
from openk.wire.messages import RawValue, Text
from openk.wire.methods import NAME_MOST, Field, Kind

ENTRIES_MOST: Final = 256
"""Entries of a `fields` map, elements of a `texts` list."""

Rule = Callable[[RawValue], Value]


def make_rule(field: Field) -> Rule:
    maker = _MAKERS.get(field.kind)
    if maker is None:
        raise AssertionError(f"{field.name}: {field.kind} is a kind of results only")
    return maker(field)


def _text(field: Field) -> Rule:
    name, most, choices = field.name, field.most, frozenset(field.choices)

    def rule(raw: RawValue) -> Value:
        if type(raw) is not Text:
            raise InvalidArguments(f"{name} must be text (the str family)", name)
        if len(raw.view) > 4 * most:  # the longest UTF-8 there is
            raise InvalidArguments(f"{name} is longer than {most} characters", name)
        try:
            text = str(raw.view, "utf-8")
        except UnicodeDecodeError:
            raise InvalidArguments(f"{name} is not UTF-8", name) from None
        if len(text) > most:
            raise InvalidArguments(f"{name} is longer than {most} characters", name)
        if choices and text not in choices:
            near = get_close_matches(text, field.choices, 1)
            advice = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(field.choices)}"
            raise InvalidArguments(f"{name} is none of its choices; {advice}", name)
        return text

    return rule


def _bytes(field: Field) -> Rule:
    def rule(raw: RawValue) -> Value:
        return _view(raw, field.name, field.most)

    return rule


def _view(raw: RawValue, name: str, most: int) -> memoryview:
    view = raw.view if type(raw) is Text else raw
    if type(view) is not memoryview:
        raise InvalidArguments(f"{name} must be bytes", name)
    if len(view) > most:
        raise InvalidArguments(f"{name} is longer than {most} bytes", name)
    return view


def _integer(field: Field) -> Rule:
    name, most = field.name, field.most

    def rule(raw: RawValue) -> Value:
        if type(raw) is not int or not 0 <= raw <= most:
            raise InvalidArguments(f"{name} must be an integer from 0 to {most}", name)
        return raw

    return rule


def _flag(field: Field) -> Rule:
    name = field.name

    def rule(raw: RawValue) -> Value:
        if type(raw) is not bool:
            raise InvalidArguments(f"{name} must be true or false", name)
        return raw

    return rule


def _fields(field: Field) -> Rule:
    name, most = field.name, field.most

    def rule(raw: RawValue) -> Value:
        if type(raw) is not dict or len(raw) > ENTRIES_MOST:
            raise InvalidArguments(f"{name} must be a map of at most {ENTRIES_MOST} names to bytes", name)
        if not all(1 <= len(key) <= NAME_MOST for key in raw):
            raise InvalidArguments(f"each name in {name} must have 1 to {NAME_MOST} characters", name)
        return {key: _view(value, name, most) for key, value in raw.items()}

    return rule


def _texts(field: Field) -> Rule:
    name = field.name
    one = _text(field)

    def rule(raw: RawValue) -> Value:
        if type(raw) is not list or len(raw) > ENTRIES_MOST:
            raise InvalidArguments(f"{name} must be a list of at most {ENTRIES_MOST} texts", name)
        return [text for text in map(one, raw) if isinstance(text, str)]

    return rule


_MAKERS: Final = {
    Kind.TEXT: _text,
    Kind.BYTES: _bytes,
    Kind.INTEGER: _integer,
    Kind.FLAG: _flag,
    Kind.FIELDS: _fields,
    Kind.TEXTS: _texts,
}
