"""Values that nobody changes, made as cheaply as those that may be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def frozen(cls: type[T]) -> type[T]:
    """A dataclass that type checkers hold frozen, made as cheaply as one that is not: several of these are made for
    each request, and `frozen=True` at run time doubles to triples the price of each."""
    return dataclass(slots=True, eq=False)(cls)
