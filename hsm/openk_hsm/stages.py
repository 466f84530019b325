"""Since when the answer that is being settled was a worker's to give: so that whoever waits can tell waiting in the
daemon from waiting for the HSM, without a stamp on each operation."""

from __future__ import annotations


class Settling:
    """`sent`: when the batch or call whose answer is being settled now went to its worker (monotonic seconds); 0.0
    while none is. Waiters run within the settling, so what they read there is their own."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = 0.0


SETTLING = Settling()
