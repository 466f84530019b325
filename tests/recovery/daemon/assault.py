"""Kills with SIGKILL, and what must be true afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import trio

import openk_tools.audit_verify as verifier
from openk_daemon.audit.recovery import find_disagreements
from openk_daemon.hierarchy.records import UNAUDITED
from openk_daemon.store.sqlite import SqliteStore
from tests.support.daemon import RunningDaemon, start_daemon
from tests.support.load import TOKEN, Book, Client, Mix, Wire

GONE_WITHIN = 5.0
"""Seconds after which no child of a killed monitor may live; it is a matter of milliseconds."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes, in memory, at `folder`. As root only."""
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"size={size},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "openk-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def seed() -> int:
    """From OPENK_SEED, or a fresh one; printed, so that a failure shows it."""
    chosen = int(os.environ.get("OPENK_SEED") or int.from_bytes(os.urandom(4)))
    print(f"OPENK_SEED={chosen}")
    return chosen


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass
class Assault:
    """A daemon in `folder` that is killed piece by piece."""

    folder: Path
    chance: random.Random
    workers: int = 2
    kills: Counter[str] = field(default_factory=Counter)
    daemon: RunningDaemon | None = None
    slowest_end: float = 0.0
    """Seconds that the children of a killed monitor lived on, at most."""

    async def start(self) -> None:
        self.daemon = start_daemon(self.folder, self.workers)
        wire = Wire(self.folder / "openkd.sock")
        await wire.connect()
        await wire.ask([("system.ping", {})])
        await wire.close()

    async def kill_child(self, name: str) -> None:
        """SIGKILL; a child that is just being started again is left alone."""
        assert self.daemon is not None
        assert self.daemon.process.poll() is None, f"the monitor ended:\n{self.daemon.log[-3000:]}"
        try:
            pid = self.daemon.pids[name]
            os.kill(pid, signal.SIGKILL)
        except (KeyError, FileNotFoundError, ProcessLookupError):
            return
        self.kills[name.split("-", maxsplit=1)[0]] += 1
        await trio.lowlevel.checkpoint()

    async def workers_lost(self) -> int:
        """How many links to workers the daemon has lost so far."""
        return (await self._hsm())["restarts"]

    async def wait_for_workers(self, lost: int) -> None:
        """Until the daemon has lost so many links in all, and every worker is connected again."""
        with trio.fail_after(30):
            while True:
                facts = await self._hsm()
                if facts["restarts"] >= lost and facts["workers"] == self.workers:
                    return
                await trio.sleep(0.01)

    async def _hsm(self) -> dict[str, int]:
        wire = Wire(self.folder / "openkd.sock")
        (answer,) = await wire.ask([("system.info", {})])
        await wire.close()
        assert isinstance(answer, dict), answer
        facts: dict[str, int] = answer["info"]["hsm"]
        return facts

    async def kill_monitor(self) -> None:
        """Its children must follow; then everything is started again, as an operator would."""
        assert self.daemon is not None
        children = self._children()
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.kills["monitor"] += 1
        await self._see_end(children)
        await self.start()

    async def kill_all(self) -> None:
        """As the kernel does to a control group, or a power cut."""
        assert self.daemon is not None
        children = self._children()
        for pid in [self.daemon.process.pid, *children]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.daemon.process.wait()
        self.kills["all"] += 1
        await self._see_end(children)
        await self.start()

    def _children(self) -> list[int]:
        """Of the monitor, those included that pids.json does not know yet. One may be forked at this very moment."""
        assert self.daemon is not None
        return [child.pid for child in psutil.Process(self.daemon.process.pid).children()]

    async def _see_end(self, children: list[int]) -> None:
        began = time.monotonic()
        while any(map(lives, children)):
            assert self.daemon is not None
            assert time.monotonic() - began < GONE_WITHIN, f"a child outlives its monitor:\n{self.daemon.log[-3000:]}"
            await trio.sleep(0.005)
        self.slowest_end = max(self.slowest_end, time.monotonic() - began)

    def end(self) -> None:
        """Whatever still runs."""
        if self.daemon is not None and self.daemon.process.poll() is None:
            self.daemon.kill()


@asynccontextmanager
async def load(
    folder: Path, book: Book, chance: random.Random, clients: int = 8, mix: Mix = TOKEN
) -> AsyncIterator[None]:
    """Clients at work within the block."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            chosen = random.Random(chance.random())
            name = f"c{chosen.getrandbits(24):06x}"
            nursery.start_soon(Client(name, book, folder / "openkd.sock", chosen, mix).run, stop)
        yield
        stop.set()


async def public_key(folder: Path) -> verifier.PublicKey:
    wire = Wire(folder / "openkd.sock")
    (head,) = await wire.ask([("audit.head", {})])
    await wire.close()
    assert isinstance(head, dict), head
    return verifier.read_public_key(head["verifier_key"])


async def examine(folder: Path, public: verifier.PublicKey) -> int:
    """A stopped daemon's state: a stranger verifies the log, and no record disagrees. The log's size."""
    report = verifier.verify_folder(str(folder / "state" / "audit"), public)
    store = SqliteStore(str(folder / "state"))
    try:
        size = store.log_size()
        assert report.head.size == size, f"{size - report.head.size} entries are not signed after a clean stop"
        found = await find_disagreements(store, 0, UNAUDITED)
        assert found == [], found[:5]
    finally:
        store.close()
    return size


def among(book: Book, allowed: Callable[[str, str], bool]) -> list[tuple[tuple[str, str], int]]:
    """Refusals that are not allowed."""
    return [(what, count) for what, count in book.refused.items() if not allowed(*what)]
