"""The one exception that answers a client: a code from the table, a sanitised sentence, typed details."""

from __future__ import annotations

from collections.abc import Mapping

from openk.wire.codes import CODES, Code

Detail = str | int | bool | list[str] | list[int]


class Refusal(Exception):
    """Raised by any step of the pipeline; becomes the error of the reply there and nowhere else.

    `message` may name what the caller sent (names, numbers), never secrets, server paths or foreign texts.
    The cause (`raise ... from error`) goes to the log only.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retry_after: float | None = None,
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        self.code: Code = CODES[code]
        self.message = message or self.code.meaning
        self.retry_after = retry_after  # seconds
        self.details: Mapping[str, Detail] = details or {}
        super().__init__(f"{code}: {self.message}")


def let_go(error: BaseException) -> None:
    """Forget the way that `error`, and what lies behind it, came: its frames hold views of the request, and whoever
    keeps the error (the Pending that it settled) is in them. Such a cycle would keep locked memory until a collector
    comes, which is seldom."""
    ahead: list[BaseException | None] = [error]
    seen: set[int] = set()
    while ahead:
        found = ahead.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__traceback__ = None
            ahead += (found.__cause__, found.__context__)
