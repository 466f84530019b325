"""Secret bytes that can be wiped."""

from __future__ import annotations

import hmac
from types import TracebackType
from typing import NoReturn, cast

Buffer = bytes | bytearray | memoryview
"""What a method takes where it takes bytes. A bytearray or memoryview can be wiped after the call; bytes cannot."""


class Secret(bytearray):
    """Secret bytes from the daemon: a bytearray (whatever takes a buffer takes it), which `wipe` overwrites in
    place, as does the end of a `with` block. `bytes(secret)` makes an immutable copy that nothing can wipe.

    Never resized by openk, so there is one copy of it; whoever appends to it may leave another behind.
    Compared in constant time, shown without its content, and not to be pickled."""

    def wipe(self) -> None:
        """Overwrite with zeros; the length stays."""
        self[:] = bytes(len(self))

    def __enter__(self) -> Secret:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, bytes | bytearray | memoryview):
            return hmac.compare_digest(self, cast("Buffer", other))
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        if isinstance(other, bytes | bytearray | memoryview):
            return not hmac.compare_digest(self, cast("Buffer", other))
        return NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Secret({len(self)} bytes)"

    def __str__(self) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not to be pickled or copied by copy.copy")


def view_of(value: Buffer) -> memoryview:
    """The bytes of `value`, not copied. Raises TypeError for a buffer that is not contiguous."""
    return memoryview(value).cast("B")
