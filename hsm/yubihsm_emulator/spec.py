"""What the processor must know of a command before and after its handler runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from yubihsm_emulator.codes import NOBODY, Capability
from yubihsm_emulator.request import Request

Handler = Callable[[Request], bytes]

KeyOf = Callable[[bytes, bytes | None], int]
"""Which key an entry of the audit log names: from the request's data and the reply's (None when it failed)."""


def nobody(_request: bytes, _reply: bytes | None) -> int:
    return NOBODY


def field(at: int) -> KeyOf:
    """The u16 at this offset of the request."""

    def read(request: bytes, _reply: bytes | None) -> int:
        return int.from_bytes(request[at : at + 2], "big") if len(request) >= at + 2 else NOBODY

    return read


def answered(at: int) -> KeyOf:
    """The u16 at this offset of the reply: ids of new objects. Nobody when it failed."""

    def read(_request: bytes, reply: bytes | None) -> int:
        return NOBODY if reply is None else int.from_bytes(reply[at : at + 2], "big")

    return read


NEW: Final = answered(0)


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of the table of commands.

    needs     capability the session must have before the handler runs
    target    the key the audit log names first
    second    and second
    in_clear  also understood outside a session (then `Request.session` is `CLEAR`)
    """

    handler: Handler
    needs: Capability = Capability.NONE
    target: KeyOf = nobody
    second: KeyOf = nobody
    in_clear: bool = False
