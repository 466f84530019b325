"""A connection to the daemon through the SDK, whose errors become Failure. The SDK is imported when it is used:
`--help` needs no socket."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from openk_tools.failure import Failure
from openk_tools.settings import Settings
from openk_tools.values import Answer

if TYPE_CHECKING:
    import openk


class Session:
    """Closed by `with`. `call` raises Failure and nothing else for what the daemon or the socket does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: openk.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()

    def call(self, method: str, params: Answer) -> Answer:
        """One request, one answer: its secret values as bytearrays, which the caller wipes."""
        import openk  # noqa: PLC0415

        try:
            if self._client is None:
                self._client = openk.Client(self._settings.socket, timeout=self._settings.timeout)
            return self._client.call(method, dict(params))
        except openk.Error as error:
            raise Failure(error.code, error.message, error.request, error.retry_after, error.details) from None
