"""A connection to the daemon through the SDK, whose errors become Failure. The SDK is imported when it is used:
`--help` needs no socket."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, cast

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

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()

    def call(self, method: str, params: Answer) -> Answer:
        """One request, one answer: its secret values as bytearrays, which the caller wipes."""
        import openk  # noqa: PLC0415

        if self._client is None:
            self._client = openk.Client(self._settings.socket, timeout=self._settings.timeout, connections=1)
        try:
            # The SDK's values are among ours (its Secret is a bytearray); only invariance keeps the types apart.
            return cast(Answer, self._client.call(method, params))
        except openk.Error as error:
            details = {name: value for name, value in error.details.items() if value is not None}
            raise Failure(error.code, error.message, error.request, error.retry_after, details) from None
