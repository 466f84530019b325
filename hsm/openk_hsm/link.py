"""One connection of a lane to one worker: its hand-off region, what is in flight there, what is loaded there.

    region   | arena 0            | arena 1            | arena 2            |   a batch in flight owns an arena,
             | in out in out ...  |                    |                    |   which is wiped when it is answered

An operation too large for an arena waits until the link is idle and takes the whole region.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final, cast

from openk_hsm import frames
from openk_hsm.costs import cost_of
from openk_hsm.errors import HsmError, InvalidInput
from openk_hsm.fair_queue import FairQueue
from openk_hsm.frames import BadFrame, Call
from openk_hsm.loaded_keys import LoadedKeys
from openk_hsm.pending import Pending
from openk_hsm.seam import Operation, Replay, TokenInfo, Wrapper
from openk_hsm.specs import room_of
from openk_hsm.stages import SETTLING
from openk_memory.handoff import HandOff
from openk_memory.wiping import wipe

ARENAS: Final = 3
BATCH_COST: Final = 1000
"""Microseconds of work in a batch: what the next client waits for behind it."""
LOADS: Final = 8
"""Keys loaded for one batch, at most: each is a message, and the socket's buffer is bounded."""
LOAD_COST: Final = 60
_ALIGN: Final = 15
_WHOLE: Final = -1
NEVER: Final = float("inf")
"""`expires` of a placeholder: its operation was given up."""
_SEQS: Final = 1 << 24


@dataclass(slots=True, eq=False)
class Cold:
    """A cold call. `wrapper`: keys it needs loaded first."""

    method: str
    arguments: tuple[object, ...]
    replay: Replay
    expires: float
    hang: float
    pending: Pending[object] = field(default_factory=Pending[object])
    wrapper: Wrapper | None = None
    replays: int = 0
    cost: int = 1000
    request: int = 0
    """As `Operation.request`."""


@dataclass(slots=True, eq=False)
class Batch:
    """Hot operations in flight. `operations[i]` is None once answered."""

    arena: int
    end: int
    sent: float
    operations: list[Operation | None]
    outs: list[int]
    left: int
    cost: int


class Link:
    """Sends and receives without blocking. Errors of the socket and BadFrame mean the worker is lost."""

    def __init__(self, connection: socket.socket, region: HandOff, info: TokenInfo, hang: float, keys: int) -> None:
        """`hang`: seconds after which a batch's worker must be dead; `keys`: most wrapped keys loaded."""
        self.info = info
        self.socket = connection
        self.cost = 0
        self.batches: dict[int, Batch] = {}
        self.cold: dict[int, tuple[Cold, float]] = {}
        self._region = region
        self._view = region.view
        self._size = region.size
        self._arena = (region.size // ARENAS) & ~_ALIGN
        self._free = list(range(ARENAS))
        self._hang_ms = int(hang * 1000)
        self._keys = LoadedKeys(self._tell, keys)
        self._seqs = count(1)
        self._out = bytearray(frames.HEADER.size + frames.MAX_BATCH * frames.REQUEST.size)
        self._out_view = memoryview(self._out)
        self._in = bytearray(frames.MAX_MESSAGE)
        self._in_view = memoryview(self._in)
        self._backlog: deque[bytes] = deque()
        self._given_up = False

    # --- sending ---

    @property
    def has_room(self) -> bool:
        return bool(self._free) and not self._backlog

    @property
    def loaded(self) -> int:
        """Keys that the worker's session holds."""
        return len(self._keys)

    @property
    def idle(self) -> bool:
        return not self.batches and not self.cold

    @property
    def requests(self) -> list[int]:
        """Counts of the requests that the worker has something of, oldest first; 0 for the daemon's own."""
        asked = [op.request for batch in self.batches.values() for op in batch.operations if op and op.expires != NEVER]
        return asked + [call.request for call, _ in self.cold.values()]

    def fits(self, operation: Operation) -> bool:
        """Whether the region could ever hold it."""
        inputs = len(operation.param) + len(operation.aad) + len(operation.data)
        return inputs + room_of(operation) + _ALIGN <= self._size

    def send_batch(self, queue: FairQueue, now: float, deaths: int = 0) -> int:
        """Fill a batch from `queue` and send it; how many operations that were (0: nothing fits now). Raises OSError
        when the worker has gone; then all of them are in `queue` again: it did not die under them. `deaths`: of workers
        under what is in `queue`, for the worker's log."""
        operations: list[Operation | None] = []
        try:
            return self._fill_and_send(queue, now, operations, min(deaths, 255))
        except OSError:
            for operation in reversed(operations):
                if operation is not None:
                    queue.put_back(operation)
            raise

    def _fill_and_send(self, queue: FairQueue, now: float, operations: list[Operation | None], deaths: int) -> int:
        """`operations` gets what was taken out of `queue`, as soon as it is taken."""
        arena = self._free[-1]
        position = arena * self._arena
        end = position + self._arena
        number = next(self._seqs) % _SEQS
        outs: list[int] = []
        cost = loads = filled = 0
        view, out, loaded, pack = self._view, self._out, self._keys.used, frames.REQUEST.pack_into
        at_row, step = frames.HEADER.size, frames.REQUEST.size
        while queue.count and cost < BATCH_COST and filled < frames.MAX_BATCH:
            operation = queue.pop()
            key = operation.key
            slot = 0
            if key is not None:
                slot = key.slot
                if slot not in loaded:
                    if loads >= LOADS:
                        queue.put_back(operation)
                        break
                    operations.append(operation)  # before the first that may raise
                    loads += self._keys.load(key, number, operation.request)
                    operations.pop()
                    cost += LOAD_COST
                loaded[slot] = number
            param, aad, data = operation.param, operation.aad, operation.data
            param_length, aad_length, data_length = len(param), len(aad), len(data)
            room = room_of(operation)
            top = position + param_length + aad_length + data_length
            if top + room > end:
                if filled or self.batches or not self.fits(operation):
                    queue.put_back(operation)
                    break
                arena, end = _WHOLE, self._size
                top -= position
                position = 0
            at = position
            if param_length:
                view[position : position + param_length] = param
                position += param_length
            if aad_length:
                view[position : position + aad_length] = aad
                position += aad_length
            view[position:top] = data
            pack(
                out, at_row, number << 8 | filled, operation.code, operation.mechanism, param_length, slot, at,
                aad_length, data_length, top, room, operation.request,
            )  # fmt: skip
            at_row += step
            operations.append(operation)
            outs.append(top)
            filled += 1
            position = (top + room + _ALIGN) & ~_ALIGN
            cost += cost_of(operation)
        if not filled:
            return 0
        if arena == _WHOLE:
            self._free.clear()
        else:
            self._free.pop()
        frames.HEADER.pack_into(out, 0, frames.BATCH, deaths, filled, self._hang_ms + cost // 100)
        self._send(self._out_view[:at_row])
        self.batches[number] = Batch(arena, min(position, self._size), now, operations, outs, filled, cost)
        self.cost += cost
        self._keys.evict(number)
        return filled

    def send_cold(self, cold: Cold, now: float) -> None:
        """Raises OSError when the worker has gone; then the call was not sent and is still the caller's."""
        number = next(self._seqs) % _SEQS
        if cold.wrapper is not None:
            for key in (cold.wrapper.kw, cold.wrapper.mac):
                if key.slot not in self._keys.used:
                    self._keys.load(key, number, cold.request)
        call = Call(number << 8, cold.method, cold.arguments, cold.request)
        self._send(frames.pack_call(call, int(cold.hang * 1000), cold.replays))
        self.cold[number << 8] = (cold, now)
        self.cost += cold.cost

    def unload(self, slot: int) -> None:
        """Raises OSError when the worker has gone."""
        self._keys.unload(slot)

    def _tell(self, request: int, method: str, *arguments: object) -> int:
        seq = (next(self._seqs) % _SEQS) << 8
        self._send(frames.pack_call(Call(seq, method, arguments, request), self._hang_ms))
        return seq

    def _send(self, message: bytes | memoryview) -> None:
        if not self._backlog:
            try:
                self.socket.send(message)
            except BlockingIOError:
                pass
            else:
                return
        self._backlog.append(bytes(message))

    def _flush(self) -> None:
        while self._backlog:
            try:
                self.socket.send(self._backlog[0])
            except BlockingIOError:
                return
            self._backlog.popleft()

    # --- receiving ---

    def receive(self) -> bool:
        """Take one message and settle what it answers; False when there is none now.
        Raises ConnectionError, OSError, HsmError (BadFrame too)."""
        if self._given_up:
            raise ConnectionError("the worker was given up")
        try:
            length = self.socket.recv_into(self._in)
        except BlockingIOError:
            return False
        if not length:
            raise ConnectionError("the worker has gone")
        if length < frames.HEADER.size:
            raise BadFrame("a worker's message is shorter than its header")
        if self._backlog:
            self._flush()
        message = self._in_view[:length]
        kind = bytes(message[:1])
        if kind == frames.ANSWERS:
            self._settle(message[frames.HEADER.size :])
        elif kind == frames.RESULT:
            self._settle_cold(message)
        elif kind == frames.ERROR:
            self._settle_error(*frames.unpack_error(message))
        elif kind == frames.REFUSAL:
            raise frames.unpack_error(message)[1]  # the device is in trouble: the worker's last word
        else:
            raise BadFrame("a worker sent a message of an unknown kind")
        return True

    def _settle(self, rows: memoryview) -> None:
        if len(rows) % frames.ROW.size:
            raise BadFrame("a worker's answers are cut short")
        batches, view = self.batches, self._view
        pairs = list(cast(Iterator[tuple[int, int]], frames.ROW.iter_unpack(rows)))  # as in Service._batch
        first = batches.get(pairs[0][0] >> 8) if pairs else None
        if first is not None:
            SETTLING.sent = first.sent
        for seq, length in pairs:
            batch = batches.get(seq >> 8)
            index = seq & 255
            operation = batch.operations[index] if batch is not None and index < len(batch.operations) else None
            if batch is None or operation is None:
                raise BadFrame("a worker answered what was not asked")
            batch.operations[index] = None
            at = batch.outs[index]
            into = operation.into
            answer: bytes | int
            if length > operation.room or (into is not None and length > len(into)):
                answer = -1
            elif into is None:
                answer = bytes(view[at : at + length])
            else:
                into[:length] = view[at : at + length]
                answer = length
            batch.left -= 1
            if not batch.left:
                self._finish(seq >> 8, batch)
            # Last: whoever waits runs here, and may submit again.
            if answer == -1:
                operation.pending.fail(InvalidInput("the answer is longer than the room for it"))
            else:
                operation.pending.resolve(answer)
        SETTLING.sent = 0.0

    def _finish(self, number: int, batch: Batch) -> None:
        """The batch is answered: wipe its arena and free it."""
        del self.batches[number]
        self.cost -= batch.cost
        if batch.arena == _WHOLE:
            wipe(self._view[: batch.end])
            self._free = list(range(ARENAS))
        else:
            wipe(self._view[batch.arena * self._arena : batch.end])
            self._free.append(batch.arena)

    def _settle_cold(self, message: memoryview) -> None:
        seq, value = frames.unpack_result(message)
        found = self.cold.pop(seq, None)
        if found is None:
            self._keys.done(seq)
            return
        self.cost -= found[0].cost
        SETTLING.sent = found[1]
        found[0].pending.resolve(value)
        SETTLING.sent = 0.0

    def _settle_error(self, seq: int, error: HsmError) -> None:
        found = self.cold.pop(seq, None)
        if found is not None:
            self.cost -= found[0].cost
            SETTLING.sent = found[1]
            found[0].pending.fail(error)
            SETTLING.sent = 0.0
            return
        if self._keys.failed(seq):
            return
        batch = self.batches.get(seq >> 8)
        if batch is None or (seq & 255) >= len(batch.operations):
            return  # an unload of something that was never loaded
        operation = batch.operations[seq & 255]
        if operation is None:
            raise BadFrame("a worker answered twice")
        batch.operations[seq & 255] = None
        batch.left -= 1
        if not batch.left:
            self._finish(seq >> 8, batch)
        SETTLING.sent = batch.sent
        operation.pending.fail(error)
        SETTLING.sent = 0.0

    # --- the end ---

    def give_up(self) -> None:
        """Part from the worker: whoever reads the link sees its end. Answers that have arrived are not read any more:
        the worker wipes the region when it sees us go, and zeros would pass for answers."""
        self._given_up = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def abandon(self, now: float) -> Sequence[Operation]:
        """Operations in flight past their deadline, taken out: their answers will be dropped.
        Their buffers are free then."""
        late: list[Operation] = []
        for batch in self.batches.values():
            for index, operation in enumerate(batch.operations):
                if operation is not None and operation.expires <= now:
                    late.append(operation)
                    nobody = Operation(operation.code, operation.room, expires=NEVER)
                    batch.operations[index] = nobody
        return late

    def hung(self, now: float) -> bool:
        """Whether the worker should have died of its own alarm by now."""
        patience = self._hang_ms / 1000 + 1.0
        oldest = min((batch.sent for batch in self.batches.values()), default=now)
        return now - oldest > patience * (1 + len(self.cold)) or any(
            now - sent > cold.hang + patience for cold, sent in self.cold.values()
        )

    def close(self) -> tuple[list[Operation], list[Cold]]:
        """Close socket and region; what was in flight and is not answered, oldest first."""
        left = [op for batch in self.batches.values() for op in batch.operations if op and op.expires != NEVER]
        cold = [call for call, _ in self.cold.values()]
        self.batches.clear()
        self.cold.clear()
        self.socket.close()
        self._region.close()
        return left, cold
