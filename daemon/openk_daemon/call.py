"""A request that has been checked: method, arguments, items. Frozen; what every handler is given."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence

from openk.wire.methods import Method
from openk_daemon.frozen import frozen
from openk_daemon.identity.caller import Peer
from openk_daemon.policy.decision import Resource
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Write
from openk_hsm.pending import Pending
from openk_memory.lease import Lease

Value = int | bool | str | memoryview | dict[str, memoryview] | list[str]
"""An argument: memoryviews are slices of the locked receive buffer, valid until the reply is made."""


@frozen
class Arguments:
    """Typed access to a map that the table's check let through. Names come from code, never from clients."""

    values: Mapping[str, Value]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise Refusal("request.invalid", f"{name} is missing")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name, default)
        if not isinstance(value, int):
            raise Refusal("request.invalid", f"{name} is missing")
        return value

    def optional_integer(self, name: str) -> int | None:
        value = self.values.get(name)
        return value if isinstance(value, int) else None

    def optional_text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        return self.values.get(name) is True

    def view(self, name: str) -> memoryview:
        value = self.values.get(name)
        if not isinstance(value, memoryview):
            raise Refusal("request.invalid", f"{name} is missing")
        return value

    def optional_view(self, name: str) -> memoryview | None:
        value = self.values.get(name)
        return value if isinstance(value, memoryview) else None

    def fields(self, name: str) -> dict[str, memoryview] | None:
        value = self.values.get(name)
        return value if isinstance(value, dict) else None

    def has(self, name: str) -> bool:
        return name in self.values


@frozen
class Call:
    """`items` has one element when the request was not in batch form (`batch` False)."""

    method: Method
    arguments: Arguments
    items: Sequence[Arguments]
    batch: bool
    resource: Resource
    peer: Peer
    request: str
    """The request id that errors, logs and the audit record share."""


@frozen
class Sealed:
    """A secret in a reply: `lease` holds it in locked memory; whoever encodes the reply releases it."""

    lease: Lease
    length: int


Plain = int | bool | float | str | bytes | None | Sequence["Plain"] | Mapping[str, "Plain"]
Answer = Mapping[str, Plain | Sealed | Mapping[str, Sealed]]


@frozen
class After:
    """A step to take once the outcome is durable (`apply`), or when it could not be made so (`forget`)."""

    apply: Callable[[], None]
    forget: Callable[[], None] | None = None


@frozen
class Outcome:
    """What a handler returns: it changes nothing itself. The pipeline commits `writes` with the audit
    record, then runs `after`, then replies with `results`.

    One element of `results` per item of the call; a Refusal there is that item's error. `facts` are extra
    audit facts (JSON scalars; names and numbers, never values)."""

    results: Sequence[Answer | Refusal]
    writes: Sequence[Write] = ()
    facts: tuple[tuple[str, str | int], ...] = ()
    after: Sequence[After] = ()


Handler = Callable[[Call], Coroutine[Pending[object], None, Outcome]]
"""A coroutine function that awaits nothing but Pending values; raises Refusal where no item can be served."""


def release(answer: Answer) -> None:
    """Give back the locked memory of an answer that will not be sent, or has been copied."""
    for value in answer.values():
        if isinstance(value, Sealed):
            value.lease.release()
        elif isinstance(value, Mapping):
            for part in value.values():
                if isinstance(part, Sealed):
                    part.lease.release()
