"""The keys that a worker's session holds, as the lane knows: loaded on first use, dropped when there are too many."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from openk_hsm import frames
from openk_hsm.seam import KeyHandle, Resident


class Tell(Protocol):
    """Sends a call that nobody waits for; its seq. Raises OSError when the worker has gone."""

    def __call__(self, request: int, method: str, *arguments: object) -> int: ...


class LoadedKeys:
    """`used`: each loaded slot, and the batch that used it last: the link's hot loop writes it."""

    def __init__(self, tell: Tell, most: int) -> None:
        """`most`: how many may stay loaded."""
        self._tell = tell
        self._most = most
        self.used: dict[int, int] = {}
        self._loading: dict[int, int] = {}  # seq to slot

    def __len__(self) -> int:
        return len(self.used)

    def load(self, key: KeyHandle, batch: int, request: int) -> int:
        """Send what loads the key for that batch, ancestors first; how many calls that took. Raises OSError."""
        source = key.source
        sent = 1
        if isinstance(source, Resident):
            seq = self._tell(
                request, "load_resident", key.slot, frames.spec_to_wire(key.spec), source.label, source.id
            )  # fmt: skip
        else:
            for parent in (source.wrapper.kw, source.wrapper.mac):
                if parent.slot not in self.used:
                    sent += self.load(parent, batch, request)
                self.used[parent.slot] = batch
            seq = self._tell(
                request, "load_wrapped", key.slot, frames.spec_to_wire(key.spec), source.wrapper.kw.slot,
                source.wrapper.mac.slot, source.context, source.blob,
            )  # fmt: skip
        self._loading[seq] = key.slot
        self.used[key.slot] = batch
        return sent

    def unload(self, slot: int) -> None:
        """Nothing where it is not loaded. Raises OSError."""
        if self.used.pop(slot, None) is not None:
            self._tell(0, "unload", slot)

    def evict(self, newest: int) -> None:
        """Where there are too many, drop the tenth that were used longest ago, in one go: a walk for each would cost
        more. Those of the batch `newest` stay."""
        if len(self.used) <= self._most:
            return
        excess = len(self.used) - self._most + self._most // 10
        oldest = sorted(self.used, key=self.used.__getitem__)[:excess]
        with suppress(OSError):  # the batch is sent: whoever reads the link hears that the worker has gone
            for slot in oldest:
                if self.used[slot] != newest:
                    self.unload(slot)

    def done(self, seq: int) -> None:
        """The worker has done what was told under that number."""
        self._loading.pop(seq, None)

    def failed(self, seq: int) -> bool:
        """The worker could not: a key is asked for again on its next use. False: it was no load of a key."""
        slot = self._loading.pop(seq, None)
        if slot is None:
            return False
        self.used.pop(slot, None)
        return True
