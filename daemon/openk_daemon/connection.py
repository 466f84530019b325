"""One client's connection: a state machine between a socket and the pipeline, without a task of its own.

    readable ─▶ receive into locked memory ─▶ frames ─▶ intake ─▶ pipeline (many at once, in any order)
                                                                     │
    writable ◀─ send ◀─ replies, those that are ready together ◀─────┘

An idle connection holds no locked memory.  Requests hold the buffer they lie in until they are answered.  Reading
stops while `in_flight` requests are unanswered or unsent, or the client does not take its replies: what one client can
make the daemon keep is bounded.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import monotonic
from typing import Final, Protocol

from openk.wire.reader import Limits, ProtocolError, Reader, Request, read_msgid
from openk_daemon.account import code_of
from openk_daemon.call import Arguments, release
from openk_daemon.identity.caller import Peer
from openk_daemon.incoming import Incoming
from openk_daemon.intake import Intake, foreign_fragment
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.outgoing import Outgoing
from openk_daemon.pipeline import Pipeline, Results
from openk_daemon.refusal import Refusal
from openk_daemon.reply import Form, encode, encode_error
from openk_hsm.pending import drive
from openk_hsm.serving import request_id
from openk_memory.errors import Exhausted
from openk_memory.lease import Lease
from openk_memory.pool import Pool

STRIDE: Final = 8
"""Requests between two looks whether the HSM could have some of them: it works while the others are read."""
STRIKES: Final = 32
"""Requests beyond a rate limit after which the connection is not read from for a moment (`serve.SWEEP`): each is
recorded, so that whoever floods may not make more records than this."""

_numbers = count(1)
"""Of the requests of this run."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`message`: of one frame. `in_flight`: requests unanswered. `seconds`: from a message's first byte to its last,
    and for a client to take a reply."""

    message: Limits
    in_flight: int
    seconds: float


class Loop(Protocol):
    """What a connection asks of the server it belongs to."""

    def dirty(self, connection: Connection) -> None:
        """Call `flush` when this round's replies are together."""

    def listen(self, connection: Connection, *, read: bool, write: bool) -> None:
        """Which events to report from now on."""

    def rest(self, connection: Connection) -> None:
        """Call its `resume_rested` in a moment."""

    def closed(self, connection: Connection) -> None: ...


def employ_nobody() -> None:
    """For lanes that do their work at once."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What all connections share."""

    pipeline: Pipeline
    pool: Pool
    metrics: Metrics
    log: Log
    bounds: Bounds
    loop: Loop
    employ: Callable[[], None] = employ_nobody
    """Gives HSM workers that have nothing to do what waits for them, in the middle of many requests."""


class Connection:
    """Owns the socket (not blocking) and closes it. Every method belongs to the trio thread."""

    __slots__ = (
        "_arriving", "_desk", "_finishing", "_form", "_incoming", "_intake", "_leaving",
        "_out", "_outgoing", "_reader", "_reading", "_resting", "_strikes", "_waiting", "_writing", "fd", "in_flight",
        "peer", "queued", "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, peer: Peer, reader: Reader, intake: Intake, desk: Desk) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.in_flight = 0
        self.queued = False  # on the loop's list of dirty connections
        self._reader = reader
        self._intake = intake
        self._desk = desk
        self._form: Form = "pair"
        self._incoming = Incoming(desk.pool, peer.owner)
        self._arriving = 0.0  # when the first bytes of an incomplete message came; 0: there is none
        self._leaving = 0.0  # since when the client does not take its replies; 0: it does
        self._outgoing = Outgoing()
        self._out = self._outgoing.replies
        self._reading = True
        self._waiting = False  # in the pool's queue, at most once
        self._resting = False  # has gone on beyond its rate limit
        self._strikes = 0
        self._writing = False
        self._finishing = False  # no more requests: close when all is answered

    @property
    def idle(self) -> bool:
        return self.in_flight == 0 and not self._out

    # --- receiving ---

    def readable(self) -> None:
        """Take what has arrived."""
        try:
            lease = self._incoming.room(self._reader.needed)
        except Exhausted as error:
            if error.possible:
                self._await_room()
            else:
                self._cut_off("request.too_large", "the message does not fit the locked memory of one user")
            return
        try:
            received = self.sock.recv_into(lease.view[self._incoming.end :])
        except BlockingIOError:
            self._incoming.settle()
            return
        except OSError:
            self.close()
            return
        if not received:
            self.finish()
            return
        self._desk.metrics.bytes_in += received
        self._incoming.end += received
        self._parse(lease)

    def _await_room(self) -> None:
        """No locked memory is free: read on when there is some."""
        self._desk.metrics.reads_paused += 1
        self._pause()
        self._waiting = True  # nothing else resumes it now: it is in the queue once
        self._desk.pool.when_room(self._take_room, self.peer.owner)

    def _take_room(self) -> bool:
        """Asked by the pool, in the middle of somebody's release: take the memory, or leave it to the next in the queue
        (False), and do nothing else here. What has arrived is read at the next wake-up."""
        if self.fd >= 0 and not self._finishing and not self._reading:
            try:
                self._incoming.room(self._reader.needed)
            except Exhausted:
                return False
            self._reading = True
            self._listen()
        self._waiting = False
        return True

    def _parse(self, lease: Lease) -> None:
        reader = self._reader
        bounds = self._desk.bounds
        view = lease.view
        incoming = self._incoming
        while incoming.begin < incoming.end:
            if self.in_flight + len(self._out) >= bounds.in_flight or self._writing:
                self._pause()
                return
            try:
                message = reader.read(view, incoming.begin, incoming.end)
            except ProtocolError as error:
                if not self._reject(error):
                    return
                continue
            if message is None:
                if not self._arriving:
                    self._arriving = monotonic()
                return
            incoming.begin = reader.position
            self._arriving = 0.0
            if isinstance(message, Request):
                self._admit(message, lease)
                if self.in_flight % STRIDE == 0:
                    self._desk.employ()
        incoming.settle()  # between messages a connection holds no locked memory of its own

    def _reject(self, error: ProtocolError) -> bool:
        """Answer bytes that are no request. False where the stream cannot be followed any more."""
        self._desk.metrics.frames_invalid += 1
        self._desk.log.warning(
            "frame.invalid", connection=self.peer.connection, uid=self.peer.caller.uid, reason=error.reason
        )
        self._arriving = 0.0
        if not error.fatal:
            self._incoming.begin = self._reader.position
        if error.msgid is not None:
            refusal = Refusal(error.code, error.reason)
            number = next(_numbers)
            request = request_id(number)
            self.in_flight += 1
            flow = self._desk.pipeline.refuse(f'"method":"unknown",{self.peer.audit}', refusal, request)
            finish = partial(self._finished, None, error.msgid, request, False, "unknown", monotonic())
            drive(flow, finish, number)
        if error.fatal:
            self.finish()
        return not error.fatal

    def _admit(self, message: Request, lease: Lease) -> None:
        began = monotonic()
        number = next(_numbers)
        request = request_id(number)
        msgid = message.msgid
        self.in_flight += 1
        try:
            prepared, checked = self._intake.take(message)
        except Refusal as refusal:
            refusal = self._intake.limit(refusal)
            flow = self._desk.pipeline.refuse(foreign_fragment(message, self.peer), refusal, request)
            drive(flow, partial(self._finished, None, msgid, request, False, "unknown", began), number)
            return
        lease.hold()
        items = [Arguments(item) for item in checked.items]
        arguments = Arguments(checked.values)
        if prepared.method.name == "system.hello":
            self._greet(checked.values.get("errors"))
        answer = self._desk.pipeline.answer(prepared, arguments, items, checked.batch, self.peer, request, began)
        finish = partial(self._finished, lease, msgid, request, checked.batch, prepared.method.name, began)
        drive(answer, finish, number)

    def _greet(self, errors: object) -> None:
        self._form = "map" if errors == "map" else "pair"

    # --- answering ---

    def _finished(
        self, lease: Lease | None, msgid: int, request: str, batch: bool, method: str, began: float,  # noqa: FBT001
        results: Results | Refusal | None, error: Exception | None,
    ) -> None:  # fmt: skip
        """One request has its results: its buffer goes back, its reply goes out."""
        desk = self._desk
        if lease is not None:
            lease.release()
        self.in_flight -= 1
        if error is not None or results is None:
            desk.log.error("pipeline.failed", error, request=request)
            results = Refusal("internal")
        code = "ok"
        if isinstance(results, Refusal):
            code = results.code.name
            if code == "request.rate_limited":
                self._strike()
            if self.fd >= 0:
                self._outgoing.add(encode_error(msgid, results, self._form, request))
        elif self.fd < 0:  # nobody is there to take it
            for result in results:
                if not isinstance(result, Refusal):
                    release(result)
        else:
            code = code_of(results)
            self._reply(msgid, results, batch, request)
        desk.metrics.request(method, code, monotonic() - began, request)
        if not self.queued:
            desk.loop.dirty(self)

    def _reply(self, msgid: int, results: Results, batch: bool, request: str) -> None:  # noqa: FBT001 - hot: positional
        desk = self._desk
        try:
            reply = encode(msgid, results, batch, self._form, request, desk.pool, self.peer.owner)
        except Exception as error:  # noqa: BLE001 - a result that cannot be packed is a mistake of ours, and this one's only
            desk.log.error("reply.failed", error, request=request)
            reply = encode_error(msgid, Refusal("internal"), self._form, request)
        self._outgoing.add(reply)

    def flush(self) -> None:
        """Send the replies that are ready, in one call where they fit; then go on reading if that had stopped."""
        if self.fd < 0:
            return
        try:
            while self._out:
                self._desk.metrics.bytes_out += self._outgoing.send(self.sock)
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._leaving = monotonic()
                self._listen()
            return
        except OSError:
            self.close()
            return
        if self._writing:
            self._writing = False
            self._leaving = 0.0
            if self._arriving:  # nothing of it was read meanwhile
                self._arriving = monotonic()
            self._listen()
        if self._finishing and self.idle:
            self.close()
        elif not self._reading and not self._waiting and self.in_flight < self._desk.bounds.in_flight:
            self._resume()

    # --- rate limits ---

    def limit_anew(self) -> None:
        """The rates have changed."""
        self._intake.limit_anew()

    def _strike(self) -> None:
        self._strikes += 1
        if self._strikes >= STRIKES and not self._resting and self.fd >= 0:
            self._resting = True
            self._desk.metrics.reads_paused += 1
            self._pause()
            self._desk.loop.rest(self)

    def resume_rested(self) -> None:
        """It has paused long enough for what it did."""
        self._resting = False
        self._strikes = 0
        if self.fd >= 0 and not self._reading and not self._waiting and not self._writing:
            self._resume()

    # --- pausing and closing ---

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._listen()

    def _resume(self) -> None:
        """Read on: what lies in the buffer first."""
        if self._finishing or self._resting:
            return
        self._reading = True
        self._listen()
        if self._incoming.lease is not None and self._incoming.partial:
            self._parse(self._incoming.lease)

    def _listen(self) -> None:
        self._desk.loop.listen(self, read=self._reading and not self._finishing, write=self._writing)

    def overdue(self, now: float) -> bool:
        """A message has been arriving, or replies been leaving, for longer than is allowed."""
        since = self._leaving or self._arriving
        return since > 0 and now - since > self._desk.bounds.seconds

    def expire(self) -> None:
        """It is overdue: say so to a client whose message did not arrive; drop one that does not take its replies."""
        if self._leaving or self._incoming.lease is None:
            self.close()
            return
        if self._waiting:
            self._cut_off("daemon.overloaded", "no locked memory was free for the message in time")
        else:
            self._cut_off("request.timeout", "the message did not arrive completely in time")

    def drop_secrets(self) -> None:
        """The daemon is sealed: keep no unsent answer that holds a secret, and no half-received message."""
        if self._outgoing.secret:
            self.close()
        elif self._incoming.lease is not None and self._arriving:
            self._cut_off("daemon.sealed", "the daemon was sealed while the message arrived")

    def stop(self) -> None:
        """The daemon is stopping: say so where a message was arriving; its sender then knows that it was not done."""
        if self.fd >= 0 and self._incoming.partial:
            self._cut_off("daemon.stopping", "the daemon stopped before the message was taken")
        else:
            self.finish()

    def _cut_off(self, code: str, reason: str) -> None:
        """Refuse the message that is arriving, and take no more."""
        self._reject(ProtocolError(reason, read_msgid(self._incoming.unread), fatal=True, code=code))

    def finish(self) -> None:
        """Take no more requests; close once those in flight are answered."""
        if self.fd < 0:
            return
        self._finishing = True
        self._arriving = 0.0
        self._incoming.drop()
        if self.idle:
            self.close()
        else:
            self._listen()

    def close(self) -> None:
        """Close now. Requests in flight run to their end, unanswered: what they do is done and recorded."""
        if self.fd < 0:
            return
        self._desk.loop.closed(self)
        self.fd = -1
        with suppress(OSError):
            self.sock.close()
        self._outgoing.drop()
        self._incoming.drop()
