"""What goes over the wire, as Python values."""

from __future__ import annotations

from typing import TypeAlias

Value: TypeAlias = "bool | int | float | str | bytes | bytearray | memoryview | list[Value] | dict[str, Value] | None"
"""Anything a request or an answer may hold. Secrets are bytearrays and memoryviews: they can be wiped."""

Answer: TypeAlias = dict[str, Value]
