"""The items of batch calls: maps of the same fields that the single call takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NotRequired, TypedDict

from openk.secret import Buffer


class InputItem(TypedDict):
    input: Buffer


class SealItem(TypedDict):
    input: Buffer
    aad: NotRequired[Buffer]


class OpenItem(TypedDict):
    ciphertext: Buffer
    aad: NotRequired[Buffer]


class UnwrapItem(TypedDict):
    wrapped: Buffer
    aad: NotRequired[Buffer]


class SignatureItem(TypedDict):
    input: Buffer
    signature: Buffer


class MacItem(TypedDict):
    input: Buffer
    mac: Buffer


class DeriveItem(TypedDict):
    label: NotRequired[Buffer]
    context: NotRequired[Buffer]


class DataKeyItem(TypedDict):
    aad: NotRequired[Buffer]


class AgreeItem(TypedDict):
    public: Buffer


class DecapsulateItem(TypedDict):
    ciphertext: Buffer


def spread(name: str, items: Iterable[Buffer | Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Items as maps: one that is bytes stands for the map with only the field `name`."""
    return [{name: item} if isinstance(item, bytes | bytearray | memoryview) else item for item in items]
