"""Any method by its name."""

from __future__ import annotations

from collections.abc import Mapping

from openk.answers import Answer
from openk.operation import Operation, operate_untyped


def call(method: str, params: Mapping[str, object] | None = None) -> Operation[Answer]:
    """Any method by its name on the wire: its parameters and its result as the protocol has them, secret
    values in the result as Secret. Raises Error."""
    return operate_untyped(method, params or {})
