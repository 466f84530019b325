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
