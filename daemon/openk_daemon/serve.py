"""The accept loop and the home of every connection: no task per connection, none per request.

The reactor waits for all of them together: an idle connection costs its state and nothing else, and a round serves
everyone who is ready before replies leave together.  (docs/adr/0006-one-task-for-all-connections.md)
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

import trio

from openk.wire.reader import Limits, Reader
from openk_daemon.config import Config
from openk_daemon.connection import Bounds, Connection, Desk, employ_nobody
from openk_daemon.identity.caller import Peer
from openk_daemon.identity.peer import Identifier
from openk_daemon.intake import Intake
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.pipeline import Pipeline
from openk_daemon.refusal import Refusal
from openk_hsm.reactor import GONE, READ, WRITE, Reactor
from openk_memory.pool import Pool

ACCEPTS: Final = 32
"""Connections accepted in one wake-up: those that are open already come first."""
SWEEP: Final = 0.25
"""Seconds between looks for overdue clients; also how long the accept loop rests when descriptors run out."""
SPARES: Final = 2
"""Descriptors in reserve, so that whoever got the last one can still be identified."""
_OVERLOAD: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BACKLOG: Final = 1024


class Server:
    """Serves `listeners` until `drain`. Whoever made the listeners closes them after `run`."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        config: Config,
        identifier: Identifier,
        intake: Callable[[Reader, Peer], Intake],
        pool: Pool,
        metrics: Metrics,
        log: Log,
        reactor: Reactor,
    ) -> None:
        """`intake` makes one for each connection. `reactor` runs as long as the server does, and longer."""
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._config = config
        self._identifier = identifier
        self._intake = intake
        self._pool = pool
        self._metrics = metrics
        self._log = log
        limits = config.limits
        message = Limits(message_bytes=limits.message_bytes, depth=limits.nesting)
        self._bounds = Bounds(message, limits.in_flight, limits.message_seconds)
        self._desk: Desk | None = None
        self._reactor = reactor
        self._connections: dict[int, Connection] = {}
        self._dirty: list[Connection] = []
        self._rested: list[Connection] = []
        self._by_uid: dict[int, int] = {}
        self._resting = False  # the accept loop, for want of descriptors
        self._draining = False
        self._gone = trio.Event()
        self._accepted = 0
        self._spares: list[int] = []
        self._open_spares()

    def open(self, pipeline: Pipeline, employ: Callable[[], None] = employ_nobody) -> None:
        """Give it the pipeline and what keeps the HSM busy (`WorkerLane.employ`), and begin to accept."""
        self._desk = Desk(pipeline, self._pool, self._metrics, self._log, self._bounds, self, employ)
        for listener in self._listeners.values():
            listener.setblocking(False)
            self._reactor.watch(listener.fileno(), partial(self._knock, listener))

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def run(self) -> None:
        """Until cancelled; then every connection is closed."""
        try:
            await self._sweep_for_ever()
        finally:
            for fd in self._listeners:
                self._reactor.forget(fd)
            for connection in list(self._connections.values()):
                connection.close()
            self._close_spares()

    def _happened(self, connection: Connection, event: int) -> None:
        try:
            if event & READ:
                connection.readable()
            elif event & GONE:
                connection.close()
            if event & WRITE:
                connection.flush()
        except Exception as error:  # noqa: BLE001 - one connection's trouble is not the others'
            self._give_up(connection, error)

    def _knock(self, listener: socket.socket, _event: int) -> None:
        """Accepted at the end of the round: a descriptor closed in it may be a new connection's then."""
        self._reactor.soon(partial(self._accept, listener))

    def _give_up(self, connection: Connection, error: Exception) -> None:
        self._log.error("connection.failed", error, connection=connection.peer.connection)
        connection.close()

    # --- connection.Loop ---

    def dirty(self, connection: Connection) -> None:
        if not connection.queued:
            connection.queued = True
            if not self._dirty:
                self._reactor.soon(self.flush)
            self._dirty.append(connection)

    def listen(self, connection: Connection, *, read: bool, write: bool) -> None:
        self._reactor.change(connection.fd, (READ if read else 0) | (WRITE if write else 0))

    def rest(self, connection: Connection) -> None:
        self._rested.append(connection)

    def closed(self, connection: Connection) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self._count(connection.peer, -1)
            self._reactor.forget(connection.fd)
            self._metrics.connections_closed += 1
            self._gone.set()

    def flush(self) -> None:
        """Send what is ready: at the end of each round in which there is something."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.queued = False
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - the replies of the others leave all the same
                self._give_up(connection, error)

    # --- accepting ---

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OVERLOAD:
                    self._rest(error)
                return
            try:
                self._welcome(sock)
            except Exception as error:  # noqa: BLE001 - a newcomer's trouble is not that of those who are served
                self._log.error("connection.failed", error)
                failed = self._connections.pop(sock.fileno(), None)
                if failed is not None:
                    self._count(failed.peer, -1)
                sock.close()

    def _rest(self, error: OSError) -> None:
        """No descriptors or memory for another connection: leave clients in the backlog for a moment. The connections
        that are open are served all the while."""
        if not self._resting:
            self._resting = True
            self._log.warning(
                "accept.resting", reason=os.strerror(error.errno or 0), connections=len(self._connections)
            )
            for fd in self._listeners:
                self._reactor.change(fd, 0)

    def _welcome(self, sock: socket.socket) -> None:
        desk = self._desk
        self._accepted += 1
        if desk is None or self._draining or len(self._connections) >= self._config.limits.connections:
            self._metrics.connections_refused += 1
            self._log.warning("connection.refused", connections=len(self._connections))
            sock.close()
            return
        try:
            peer = self._identify(sock)
        except Refusal as refusal:
            self._metrics.connections_refused += 1
            self._log.warning("connection.unidentified", refusal.__cause__ or refusal)
            sock.close()
            return
        uid = peer.caller.uid
        if self._by_uid.get(uid, 0) >= self._config.limits.connections_per_uid and not peer.caller.administrator:
            self._metrics.connections_refused += 1
            self._log.warning("connection.refused", uid=uid, connections=self._by_uid[uid])
            sock.close()
            return
        sock.setblocking(False)
        reader = Reader(self._bounds.message)
        connection = Connection(sock, peer, reader, self._intake(reader, peer), desk)
        self._connections[connection.fd] = connection
        self._count(peer, 1)
        self._reactor.watch(connection.fd, partial(self._happened, connection))
        self._metrics.connections_opened += 1

    def _count(self, peer: Peer, change: int) -> None:
        uid = peer.caller.uid
        count = self._by_uid[uid] = self._by_uid.get(uid, 0) + change
        if not count:
            del self._by_uid[uid]

    def _identify(self, sock: socket.socket) -> Peer:
        """Raises Refusal. Identifying takes two descriptors for a moment: where the newcomer has got the last one, the
        spare ones."""
        try:
            return self._identifier.identify(sock, self._accepted)
        except Refusal as refusal:
            cause = refusal.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _OVERLOAD:
                raise
            self._close_spares()
            try:
                peer = self._identifier.identify(sock, self._accepted)
            finally:
                self._open_spares()
            self._rest(cause)
            return peer

    def _open_spares(self) -> None:
        with suppress(OSError):
            while len(self._spares) < SPARES:
                self._spares.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def _close_spares(self) -> None:
        while self._spares:
            os.close(self._spares.pop())

    async def _sweep_for_ever(self) -> None:
        while True:
            await trio.sleep(SWEEP)
            self._pool.offer()
            now = monotonic()
            if self._resting and not self._draining:
                self._resting = False
                for fd in self._listeners:
                    self._reactor.change(fd, READ)
            rested, self._rested = self._rested, []
            for connection in rested:
                self._happened_rested(connection)
            for connection in [found for found in self._connections.values() if found.overdue(now)]:
                self._log.warning(
                    "connection.overdue", connection=connection.peer.connection, uid=connection.peer.caller.uid
                )
                connection.expire()

    def _happened_rested(self, connection: Connection) -> None:
        try:
            connection.resume_rested()
        except Exception as error:  # noqa: BLE001 - as in _happened
            self._give_up(connection, error)

    def apply(self, config: Config) -> None:
        """Another configuration from now on: its limits on connections, and the rates, which were changed already."""
        self._config = config
        for connection in list(self._connections.values()):
            connection.limit_anew()

    def drop_secrets(self) -> None:
        """Cut off whoever leaves secrets in locked memory: answers that are not taken, messages that arrive."""
        for connection in list(self._connections.values()):
            connection.drop_secrets()

    async def drain(self, seconds: float) -> int:
        """Accept no more, read no more, let what is in flight be answered; after `seconds` give the rest up. The
        number of connections that were cut off."""
        self._draining = True
        for fd in self._listeners:
            self._reactor.forget(fd)
        with trio.move_on_after(seconds):
            for connection in list(self._connections.values()):
                connection.stop()
            while self._connections:
                self._gone = trio.Event()
                await self._gone.wait()
        return len(self._connections)


def listen(path: str, mode: int, group: int | None) -> socket.socket:
    """A Unix socket at `path`, with its permissions set before anyone can connect. A dead socket there is replaced, a
    live one is not. Raises OSError; FileExistsError where another daemon listens, or something else lies there."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        old = os.umask(0o777)
        try:
            listener.bind(path)
        finally:
            os.umask(old)
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def listen_tcp(address: str) -> socket.socket:
    """`HOST:PORT` on loopback. Raises OSError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1" if host == "localhost" else host, int(port)))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OverflowError as error:
        listener.close()
        raise OSError(errno.EINVAL, "no port has that number", address) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):  # connecting to a file is refused just like to a dead socket
            raise FileExistsError(errno.EEXIST, "something that is no socket lies there", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full: a daemon that is alive and busy
            pass
    raise FileExistsError(errno.EADDRINUSE, "another daemon listens there", path)
