"""The daemon's core in one process: a real `Server` on a real Unix socket, around parts that a test can hold still.

    async with serving(Core()) as core:
        client = core.client()

The ledger is `HeldLedger`: records are durable when the test says so (or at once). Handlers are the real ones on a
software HSM and a memory store, plus whatever a test puts in their place.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import trio

from openk.wire.methods import METHODS
from openk_daemon.audit.seam import Head, Proof, UnknownEntry
from openk_daemon.call import Arguments, Call, Handler, Outcome
from openk_daemon.config import Config, development
from openk_daemon.handlers.system import SystemHandlers
from openk_daemon.identity.caller import Caller
from openk_daemon.identity.peer import Identifier
from openk_daemon.intake import SYSTEM, Prepared, intakes
from openk_daemon.observe.health import Health
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.pipeline import Pipeline, Results
from openk_daemon.policy.decision import Decision, Explanation, Resource
from openk_daemon.rates import Rates
from openk_daemon.refusal import Refusal
from openk_daemon.serve import Server, listen
from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import Committed, Unit, Write
from openk_hsm.pending import Flow, Pending, drive, failed
from openk_hsm.reactor import Reactor
from openk_memory.pool import Pool
from tests.support.custody import PEER, Custody, run
from tests.support.logs import Captured

_pools: dict[int, list[Pool]] = {}


def take_pool(capacity: int) -> Pool:
    """Pools are never closed, so those whose leases all came back are used again."""
    gc.collect()
    known = _pools.setdefault(capacity, [])
    for pool in known:
        if not pool.in_use:
            return pool
    made = Pool(capacity)
    known.append(made)
    return made


class HeldLedger:
    """Writes to a memory store. `hold`: records wait for `let_go`. `broken`: what every commit fails with."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.entries: list[str] = []
        self.hold = False
        self.broken: list[Exception] = []
        """Errors of the next commits, the first one first."""
        self.always: Exception | None = None
        self.waiting: list[tuple[str, Sequence[Write], Pending[Committed]]] = []

    def commit(self, entry: str, writes: Sequence[Write] = ()) -> Pending[Committed]:
        if self.broken:
            return failed(self.broken.pop(0))
        if self.always is not None:
            return failed(self.always)
        if self.hold:
            pending: Pending[Committed] = Pending()
            self.waiting.append((entry, writes, pending))
            return pending
        return self._write(entry, writes)

    def _write(self, entry: str, writes: Sequence[Write]) -> Pending[Committed]:
        done = self.store.commit(Unit(writes, entry.encode()))
        if done.settled:
            try:
                done.result()
            except Exception:  # noqa: BLE001 - the waiter hears of it; here only what was written counts
                return done
        self.entries.append(entry)
        return done

    def let_go(self, count: int | None = None) -> None:
        """Make the `count` oldest records durable, or all."""
        ready, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for entry, writes, pending in ready:
            try:
                pending.resolve(self._write(entry, writes).result())
            except Exception as error:  # noqa: BLE001 - handed on
                pending.fail(error)

    def head(self) -> Pending[Head]:
        return failed(UnknownEntry("none"))

    def prove(self, index: int, old_size: int | None = None) -> Pending[Proof]:
        return failed(UnknownEntry("none"))

    def tail(self, first: int, limit: int) -> Pending[Sequence[str]]:
        return failed(UnknownEntry("none"))


class FreePolicy:
    """Allows all, but for what `decisions` says of an action."""

    epoch = 1

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.asked: list[tuple[str, Resource]] = []

    def decide(self, caller: Caller, action: str, resource: Resource) -> Decision:
        self.asked.append((action, resource))
        return self.decisions.get(action, Decision(True, ("all",)))

    def explain(self, caller: Caller, action: str, resource: Resource) -> Explanation:
        return Explanation(self.decide(caller, action, resource), ())


async def _no_facts(_name: str) -> tuple[tuple[str, str], ...]:
    return ()


class Core:
    """Everything but the HSM's process, the durable log and the policy engine."""

    def __init__(self, folder: Path, *, pool_bytes: int = 4 << 20, **limits: float) -> None:
        self.folder = folder
        self.pool = take_pool(pool_bytes)
        self.ledger = HeldLedger()
        self.policy = FreePolicy()
        self.logged = Captured()
        self.custody = Custody(store=self.ledger.store, pool=self.pool)
        system = SystemHandlers("0", {}, Health(), Metrics(), dict)
        self.handlers: dict[str, Handler] = dict.fromkeys(METHODS, _unused)
        """By method; a test may put its own in before it calls the method."""
        self.handlers |= {**self.custody.handlers, **system.handlers()}
        self.metrics = Metrics()
        self.rates = Rates()
        self.config = with_limits(development(folder, 1), limits)
        self.pipeline = Pipeline(self.policy, self.ledger, self.custody.keys.describe_resource, self.logged.log)
        self.path = str(folder / "core.sock")
        self._server: Server | None = None
        self._clients: list[Client] = []

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[Core]:
        listener = listen(self.path, 0o600, None)
        reactor = Reactor()
        self._server = Server(
            [listener], self.config, Identifier([os.getuid()]),
            intakes(self.handlers, self.custody.keys.loaded_resource, self.rates), self.pool, self.metrics, self.logged.log, reactor,
        )  # fmt: skip
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reactor.run)
                nursery.start_soon(self._server.run)
                self._server.open(self.pipeline)
                yield self
                nursery.cancel_scope.cancel()
        finally:
            reactor.close()
            listener.close()
            for client in self._clients:
                client.close()
            self.ledger.let_go()
            run(self.custody.keyring.close())
            self.custody.hierarchy.close()
            self.logged.close()

    def client(self) -> Client:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(self.path)
        sock.setblocking(False)
        made = Client(trio.socket.from_stdlib_socket(sock))
        self._clients.append(made)
        return made

    def let_go(self, count: int | None = None) -> None:
        """As a store does: settle. The reactor sends what is ready then."""
        self.ledger.let_go(count)

    async def until(self, true: Callable[[], bool]) -> None:
        """Turn the loop until it is so."""
        with trio.fail_after(5):
            while not true():  # noqa: ASYNC110 - what is waited for happens in sockets and in the kernel
                await trio.sleep(0.001)


async def _unused(_call: Call) -> Outcome:
    raise Refusal("internal")


def with_limits(config: Config, limits: Mapping[str, float]) -> Config:
    from msgspec.structs import replace  # noqa: PLC0415 - only this line knows that the configuration is made of Structs

    return replace(config, limits=replace(config.limits, **limits))


class Client:
    """A client that sends what it is told, whole or in pieces. `read` gives the next response."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.sock = sock
        self._unpacker = msgpack.Unpacker()

    async def send(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            sent += await self.sock.send(data[sent:])

    async def call(self, method: str, msgid: int = 1, /, **params: object) -> list[object]:
        await self.send(frame(msgid, method, **params))
        return await self.read()

    async def read(self) -> list[object]:
        """The next response, as [msgid, error, result]. Raises EOFError at the end of the stream."""
        with trio.fail_after(5):
            while True:
                for message in self._unpacker:
                    assert message[0] == 1
                    return list(message[1:])
                data = await self.sock.recv(1 << 16)
                if not data:
                    raise EOFError
                self._unpacker.feed(data)

    async def read_all(self) -> list[list[object]]:
        """Responses until the daemon closes."""
        found: list[list[object]] = []
        while True:
            try:
                found.append(await self.read())
            except (EOFError, ConnectionResetError):
                return found

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()


def frame(msgid: int, method: str, **params: object) -> bytes:
    packed: bytes = msgpack.packb([0, msgid, method, [params]])
    return packed


def prepared(method: str, handler: Handler, name: str = "") -> Prepared:
    return Prepared(METHODS[method], handler, name, SYSTEM, f'"method":"{method}","uid":1000')


def answer(pipeline: Pipeline, made: Prepared, *, batch: bool = False, items: int = 1) -> Answering:
    """Put a request through the pipeline."""
    empty = [Arguments({}) for _ in range(items)]
    return Answering(pipeline.answer(made, Arguments({}), empty, batch, PEER, "r-1"))


class Answering:
    """A request under way: `results` once it is answered."""

    def __init__(self, flow: Flow[Results | Refusal]) -> None:
        self.results: Results | Refusal | None = None
        drive(flow, self._finish)

    def _finish(self, results: Results | Refusal | None, error: Exception | None) -> None:
        if error is not None:
            raise error
        assert self.results is None
        self.results = results

    @property
    def refusal(self) -> Refusal:
        assert isinstance(self.results, Refusal)
        return self.results


def plain_pipeline(ledger: HeldLedger, policy: FreePolicy, log: Log) -> Pipeline:
    return Pipeline(policy, ledger, _no_facts, log)
