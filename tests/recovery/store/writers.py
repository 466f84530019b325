"""Programs that write until they are killed, and the process that starts and kills them.

Forking from the test process would be quick too, but not safe: it has threads. This one has none.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from openk_daemon.backup.maker import Course, Maker, Order
from openk_daemon.store.copying import SqliteOriginal
from openk_daemon.store.seam import Conflict, Unit, Write
from openk_daemon.store.sqlite import open_store
from openk_hsm.pending import drive
from tests.daemon.audit.logs import SLOW, Running, run_state

FLIGHT = 16
RECORDS = 30
ROOT = Path(__file__).parents[3]


def map_counter(state: str) -> mmap.mmap:
    """A counter beside the state folder that outlives the process which counts."""
    with open(f"{state}.acknowledged", "a+b") as file:
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)


async def write_records(state: str, ready: int) -> None:
    """Writers that change a few records; the number of acknowledged entries is noted outside the process.
    It is killed from its first moment on, so also while it opens the store."""
    acknowledged = map_counter(state)
    os.write(ready, b"r")
    async with open_store(state) as store:
        chance = random.Random(os.getpid())

        async def writer() -> None:
            while True:
                id_ = b"%02d" % chance.randrange(RECORDS)
                record = await store.read("key", id_)
                expected = 0 if record is None else record.version
                body = (
                    None if record is not None and chance.random() < 0.1 else chance.randbytes(chance.randrange(3000))
                )
                writes = [Write("key", id_, expected, body), Write("counter", b"%d" % os.getpid() + id_, 0, b"")][
                    : chance.choice((0, 1, 1, 1))
                ]
                told = [[w.kind, w.id.hex(), w.expected + 1, None if w.body is None else w.body.hex()] for w in writes]
                try:
                    committed = await store.commit(Unit(writes, json.dumps(told).encode()))
                except Conflict:
                    continue  # another writer was faster
                newest = struct.unpack_from("<q", acknowledged)[0]
                struct.pack_into("<q", acknowledged, 0, max(newest, committed.index + 1))

        for _ in range(FLIGHT):
            drive(writer(), lambda _value, error: print(repr(error), flush=True))
        await trio.sleep_forever()


async def change(running: Running, chance: random.Random, size: int) -> None:
    """Change one of 20 records after the other, `size` bytes each."""
    while True:
        id_ = b"%02d" % chance.randrange(20)
        record = await running.store.read("key", id_)
        version = 0 if record is None else record.version
        try:
            await running.ledger.commit('{"method":"key.create"}', (Write("key", id_, version, chance.randbytes(size)),))
        except Conflict:
            continue  # another writer was faster


async def keep_log(state: str, ready: int) -> None:
    """Writers whose log is signed very often, so that kills meet every step of publishing."""
    chance = random.Random(os.getpid())
    async with run_state(state, replace(SLOW, interval=0.003, count=50)) as running:
        os.write(ready, b"r")
        for _ in range(8):
            drive(change(running, chance, 9), lambda _value, error: print(repr(error), flush=True))
        await trio.sleep_forever()


async def make_backups(state: str, ready: int) -> None:
    """`keep_log`'s writers, and one backup after the other beside them, in the folder `state`.backups."""
    shelf = Path(f"{state}.backups")
    maker = Maker(shelf, Path(state), SqliteOriginal(state))
    moments = itertools.count(int(time.time()))
    chance = random.Random(os.getpid())
    async with run_state(state, replace(SLOW, interval=0.05)) as running:
        os.write(ready, b"r")
        drive(change(running, chance, 60_000), lambda _value, error: print(repr(error), flush=True))
        while True:
            head = await running.head()
            order = Order(head.checkpoint, 3, 0, "0.0.0", lambda: next(moments))
            await trio.to_thread.run_sync(maker.make, order, Course())


def run_and_kill(work: str, state: str, seconds: float) -> bool:
    """True when the child got ready, and was alive until it was killed."""
    reader, ready = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            trio.run({"records": write_records, "ledger": keep_log, "backups": make_backups}[work], state, ready)
        finally:
            os._exit(1)
    os.close(ready)
    began = os.read(reader, 1) == b"r"
    os.close(reader)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL and began


def serve() -> None:
    """Each line of stdin is a job, each line of stdout says whether it went as it should."""
    for line in sys.stdin:
        print(json.dumps(run_and_kill(**json.loads(line))), flush=True)


class Killer:
    """The test's end of such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, work: str, state: str, seconds: float) -> None:
        """Let `work` write into `state` for a while, then kill it. Fails when it ended before that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"work": work, "state": state, "seconds": seconds}), file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "true\n"


@contextmanager
def killer() -> Generator[Killer]:
    command = [sys.executable, "-m", "tests.recovery.store.writers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


if __name__ == "__main__":
    serve()
