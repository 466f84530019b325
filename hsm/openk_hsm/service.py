"""One daemon's connection, as a worker serves it: descriptors in, back end calls, answers out.

The answers of a batch leave together, unless the lane has put more than `SUB_BATCH` microseconds of work into it: each
message costs the daemon a wake-up, and it has other batches in flight meanwhile.

Each message from the daemon arms ITIMER_REAL with SIGALRM's default action: a vendor call that hangs kills this
process, whoever runs it, and the daemon's lane finds a new one.
"""

from __future__ import annotations

import array
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, cast

from openk_hsm import frames, journal, notify
from openk_hsm.costs import MECHANISM_COST
from openk_hsm.errors import HsmError, TokenMissing, Unavailable
from openk_hsm.frames import BadFrame, Call, Hello, Intent
from openk_hsm.operation_log import OperationLog
from openk_hsm.seam import Backend, Doubting, Mechanism, OpCode
from openk_memory.errors import LockedMemoryError
from openk_memory.handoff import HandOff

SUB_BATCH: Final = 1000
_Request = tuple[int, int, int, int, int, int, int, int, int, int, int]
_LONGEST: Final = 600.0
_IDLE: Final = 100_000
"""Microseconds between two looks around while there is nothing to do."""
_ARGUMENTS: Final[dict[str, tuple[type, ...]]] = {
    "load_resident": (int, list, str, bytes),
    "load_wrapped": (int, list, int, int, bytes, bytes),
    "unload": (int,),
    "generate": (list, int, int, bytes),
    "generate_resident": (list, str, bytes),
    "destroy_resident": (str, bytes),
    "objects": (),
    "attest": (str, bytes),
    "notices": (int,),
    "health": (),
}
"""Of cold calls, as msgpack has them: a list is a KeySpec (frames.spec_from_wire)."""
_MECHANISMS: Final[tuple[Mechanism, ...]] = tuple(
    Mechanism(number) if number in set(Mechanism) else Mechanism.NONE for number in range(256)
)


def receive_hello(connection: socket.socket) -> tuple[Hello, HandOff | None]:
    """What the daemon says, and the region that came with it, mapped; none comes to seal. Raises BadFrame,
    ConnectionError."""
    descriptors = array.array("i")
    message, ancillary, _, _ = connection.recvmsg(frames.HELLO.size + 1, socket.CMSG_SPACE(4 * descriptors.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    try:
        if not message:
            raise ConnectionError("the daemon went before it said anything")
        hello = frames.unpack_hello(message)
        if hello.intent is Intent.SEAL:
            return hello, None
        if len(descriptors) != 1:
            raise BadFrame("a hello comes with one descriptor")
        region = HandOff.attach(descriptors[0], hello.size)
        descriptors.pop()
        region.close_fd()
        return hello, region
    except LockedMemoryError as error:
        raise Unavailable(f"the worker cannot map the hand-off region: {error}") from None
    finally:
        for descriptor in descriptors:
            socket.close(descriptor)


class Service:
    """Serves one connection until the daemon leaves. The back end is open on `region` already."""

    def __init__(
        self,
        connection: socket.socket,
        backend: Backend,
        region: HandOff,
        watch: Callable[[], None],
        told: OperationLog,
    ) -> None:
        """`watch` is called at every message and every second; what it raises ends `run`. `told`: of operations."""
        self._log = told
        self._received = 0.0  # when the message came that is worked on
        self._connection = connection
        self._watch = watch
        self._backend = backend
        self._size = region.size
        self._failed: dict[int, HsmError] = {}  # slots whose loading failed: their operations say why
        self._rows = bytearray(frames.HEADER.size + frames.MAX_BATCH * frames.ROW.size)
        self._view = memoryview(self._rows)
        self._cold: dict[str, Callable[..., object]] = {
            "load_resident": self._load_resident,
            "load_wrapped": self._load_wrapped,
            "unload": self._unload,
            "generate": self._generate,
            "generate_resident": self._generate_resident,
            "destroy_resident": backend.destroy_resident,
            "objects": self._objects,
            "attest": self._attest,
            "notices": self._notices,
            "health": lambda: dict(backend.health()),
        }

    def run(self) -> None:
        """Until the daemon leaves. Raises OSError when it is torn away, BadFrame when it does not keep to the format,
        Unavailable or TokenMissing when the device has gone: then new sessions (SessionLost) or a fresh process, with a
        fresh copy of the module, are the cure, and the lane does again what was not answered."""
        buffer = bytearray(frames.MAX_MESSAGE)
        whole = memoryview(buffer)
        pause = notify.watchdog_seconds()
        due = 0.0
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, _IDLE))
        watch = self._watch
        while True:
            watch()
            if pause is not None and monotonic() >= due:
                notify.notify("WATCHDOG=1")
                due = monotonic() + pause / 2
            try:
                length = self._connection.recv_into(buffer)
            except BlockingIOError:
                journal.tell_suppressed()
                continue  # SO_RCVTIMEO: nothing to do, but to look around and to say that we live
            self._received = monotonic()
            if not length:
                return
            if length < frames.HEADER.size:
                raise BadFrame("a message is shorter than its header")
            deadline = frames.HEADER.unpack_from(buffer)[3]
            signal.setitimer(signal.ITIMER_REAL, min(_LONGEST, max(0.001, deadline / 1000)))
            try:
                self._dispatch(whole[:length])
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _dispatch(self, message: memoryview) -> None:
        kind, deaths, count, _ = frames.HEADER.unpack_from(message)
        self._log.begin(deaths)
        if kind == frames.BATCH:
            self._batch(message[frames.HEADER.size :], count)
        elif kind == frames.CALL:
            self._call(frames.unpack_call(message))
        else:
            raise BadFrame("a message is of an unknown kind")

    def _batch(self, requests: memoryview, count: int) -> None:
        if len(requests) != count * frames.REQUEST.size or count > frames.MAX_BATCH:
            raise BadFrame("a batch has another length than it says")
        backend = self._backend
        random, mac, sign = backend.random, backend.mac, backend.sign
        mechanisms, costs, size = _MECHANISMS, MECHANISM_COST, self._size
        pack, rows, first, step = frames.ROW.pack_into, self._rows, frames.HEADER.size, frames.ROW.size
        position, cost = first, 0
        # A list, not the iterator: that exports its memoryview, and when an error's traceback keeps both in a cycle,
        # CPython's collector crashes (a memoryview with exports cannot be cleared; seen with 3.11).
        rows_in = list(cast(Iterator[_Request], frames.REQUEST.iter_unpack(requests)))
        began, bound = monotonic(), self._log.bound
        for seq, code, mech, nonce, slot, at, aad, length, out, room, request in rows_in:
            data = at + nonce + aad
            if data + length > size or out + room > size:
                raise BadFrame("a request points outside the hand-off region")
            mechanism = mechanisms[mech]
            try:
                if code == 2:
                    answer = mac(slot, mechanism, data, length, out, room)
                elif code == 3:
                    answer = sign(slot, mechanism, data, length, out, room)
                elif code == 1:  # OpCode.RANDOM
                    answer = random(out, room)
                else:
                    answer = self._other(
                        code, slot, mechanism, (at, nonce), (at + nonce, aad), (data, length), out, room
                    )
            except HsmError as error:
                self._answer(position)
                position, cost = first, 0
                self._refuse(seq, self._log.hot(request, code, mechanism, slot), error, began, slot)
                began = monotonic()
            else:
                ended = monotonic()
                if ended - began > bound:
                    what = self._log.hot(request, code, mechanism, slot)
                    self._log.done(what, began - self._received, ended - began)
                    ended = monotonic()  # what telling takes is not the next one's
                began = ended
                pack(rows, position, seq, answer)
                position += step
                cost += costs[mech]
                if cost >= SUB_BATCH:
                    self._answer(position)
                    position, cost = first, 0
        self._answer(position)

    def _other(
        self,
        code: int,
        slot: int,
        mechanism: Mechanism,
        param: tuple[int, int],
        aad: tuple[int, int],
        data: tuple[int, int],
        out: int,
        room: int,
    ) -> int:
        if code == OpCode.ENCRYPT:
            return self._backend.encrypt(slot, mechanism, param, aad, data, out, room)
        if code == OpCode.DECRYPT:
            return self._backend.decrypt(slot, mechanism, param, aad, data, out, room)
        if code == OpCode.AGREE:
            return self._backend.agree(slot, *data, out, room)
        raise BadFrame("a request has an unknown code")

    def _answer(self, end: int) -> None:
        """Send the rows before `end`, if there are any."""
        if end == frames.HEADER.size:
            return
        count = (end - frames.HEADER.size) // frames.ROW.size
        frames.HEADER.pack_into(self._rows, 0, frames.ANSWERS, 0, count, 0)
        self._connection.send(self._view[:end])

    def _refuse(self, seq: int, what: dict[str, object], error: HsmError, began: float, slot: int = 0) -> None:
        """Tell whoever asked, and the log; where the key in `slot` did not load, why that was. Raises the error when it
        is the connection or the device that is in trouble."""
        if isinstance(error, BadFrame):
            raise error
        times = began - self._received, monotonic() - began
        if isinstance(self._backend, Doubting):
            error = self._backend.judge(error)
        if isinstance(error, Unavailable | TokenMissing):
            self._log.trouble(what, error, *times)
            raise error
        error = self._failed.get(slot, error)
        self._log.refused(what, error, *times)
        self._connection.send(frames.pack_error(frames.ERROR, seq, error))

    def _call(self, call: Call) -> None:
        method = self._cold.get(call.method)
        if method is None:
            raise BadFrame("a call names an unknown method")
        if tuple(map(type, call.arguments)) != _ARGUMENTS[call.method]:
            raise BadFrame(f"a call of {call.method} has wrong arguments")
        began = self._received
        try:
            message = frames.pack_body(frames.RESULT, [call.seq, method(*call.arguments)])
        except HsmError as error:
            self._refuse(call.seq, self._log.cold(call), error, began)
            return
        seconds = monotonic() - began
        if seconds > self._log.bound:
            self._log.done(self._log.cold(call), 0.0, seconds)
        if len(message) > frames.MAX_MESSAGE:
            large = HsmError(f"the answer of {call.method} is larger than a message")
            message = frames.pack_error(frames.ERROR, call.seq, large)
        self._connection.send(message)

    def _load_resident(self, slot: int, spec: object, label: str, id_: bytes) -> None:
        self._log.name(slot, label)
        self._load(slot, lambda: self._backend.load_resident(slot, frames.spec_from_wire(spec), label, id_))

    def _load_wrapped(self, slot: int, spec: object, kw: int, mac: int, context: bytes, blob: bytes) -> None:
        known = frames.spec_from_wire(spec)
        for wrapper in (kw, mac):
            if wrapper in self._failed:
                self._failed[slot] = self._failed[wrapper]
                raise self._failed[wrapper]
        self._load(slot, lambda: self._backend.load_wrapped(slot, known, kw, mac, context, blob))

    def _load(self, slot: int, load: Callable[[], None]) -> None:
        try:
            load()
        except HsmError as error:
            self._failed[slot] = error
            raise
        self._failed.pop(slot, None)

    def _unload(self, slot: int) -> None:
        self._failed.pop(slot, None)
        self._log.name(slot, "")
        self._backend.unload(slot)

    def _generate(self, spec: object, kw: int, mac: int, context: bytes) -> list[object]:
        for wrapper in (kw, mac):
            if wrapper in self._failed:
                raise self._failed[wrapper]
        made = self._backend.generate(frames.spec_from_wire(spec), kw, mac, context)
        return [made.blob, made.public]

    def _generate_resident(self, spec: object, label: str, id_: bytes) -> list[object]:
        made = self._backend.generate_resident(frames.spec_from_wire(spec), label, id_)
        return [made.blob, made.public]

    def _objects(self) -> list[object]:
        return [[info.label, info.id, info.kind, info.algorithm] for info in self._backend.objects()]

    def _attest(self, label: str, id_: bytes) -> list[bytes]:
        return list(self._backend.attest(label, id_))

    def _notices(self, after: int) -> list[object]:
        return [[notice.number, notice.at, notice.alarm, notice.text] for notice in self._backend.notices(after)]
