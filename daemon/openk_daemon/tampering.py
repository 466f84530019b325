"""What openkd does about signs that somebody is at work here: a process that traces it, a worker that sealed itself.

The kernel is asked who traces us, over and over, and tells of it where it can (openk_memory.tracers). The shipped units
take away what it tells by (docs/threat-model.md, N1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from openk_daemon.audit.seam import AuditDamaged, AuditUnavailable, Ledger
from openk_daemon.config import Config
from openk_daemon.lanes import Lanes
from openk_daemon.observe.log import Log
from openk_daemon.seal import Seal
from openk_daemon.store.seam import StoreError, Write
from openk_hsm.pending import settle
from openk_memory.hardening import tracer
from openk_memory.tracers import Tracers

PERIOD: Final = 0.1
"""Seconds between two looks, and from one told of to the next: a flood of tracers costs ten looks a second."""


class Traced(Exception):
    """Somebody traces this process, and the configuration says that it ends then."""


async def record(ledger: Ledger, entry: str, *writes: Write) -> None:
    """An entry of the daemon's own, durable."""
    await ledger.commit(entry, writes)


class Tampering:
    """Looks ten times a second, and at once when the kernel tells of a tracer. Not for threads."""

    def __init__(
        self,
        seal: Seal,
        lanes: Lanes,
        ledger: Ledger,
        log: Log,
        config: Callable[[], Config],
        tracers: Tracers,
    ) -> None:
        """`config`: what is in force."""
        self._seal = seal
        self._lanes = lanes
        self._ledger = ledger
        self._log = log
        self._config = config
        self._tracers = tracers

    async def run(self) -> None:
        """Until cancelled. Raises Traced where the configuration says `exit`."""
        while True:
            if await self._told_of_one():
                await self.look()
                await trio.sleep(PERIOD)
            await self.look()

    async def _told_of_one(self) -> bool:
        """Whether the kernel told of a tracer; waits for it a `PERIOD` long."""
        channel = self._tracers.events.channel
        if channel is None:
            await trio.sleep(PERIOD)
            return False
        with trio.move_on_after(PERIOD):
            await trio.lowlevel.wait_readable(channel)
            return True
        return False

    def bars(self) -> int:
        """The process for whose sake openk stays sealed, 0 for none: it would see what is unsealed."""
        return tracer() if self._config().hardening.on_tracer != "log" else 0

    async def look(self) -> None:
        """Raises Traced where the configuration says `exit`."""
        sight = self._tracers.look()
        if sight.lost:
            self._log.error("tamper.lost", None, text="more processes traced openkd than the kernel could tell of")
        for found in sight.tracers:
            await self._react(found)
        home = self._lanes.hsms.home
        if not self._seal.closed and home in self._lanes.sealed:
            self._log.critical("tamper.worker_sealed", None, hsm=home)
            await self.seal_now("tamper.worker_sealed", f'"hsm":"{home}"')

    async def _react(self, found: int) -> None:
        """Raises Traced where the configuration says `exit`."""
        reaction = self._config().hardening.on_tracer
        self._log.critical("tamper.traced", None, tracer=found, reaction=reaction)
        if reaction == "log":
            await self._tell(f'{{"event":"tamper.traced","tracer":{found}}}')
        else:
            await self.seal_now("tamper.traced", f'"tracer":{found}', durable=reaction == "seal")
        if reaction == "exit":
            raise Traced(f"process {found} traces openkd, and hardening.on_tracer is exit")

    async def seal_now(self, event: str, facts: str, *, durable: bool = True) -> None:
        """Close at once, then tell of it. What cannot be written is logged: it is closed all the same. Not `durable`:
        the next start is open."""
        self._seal.close()
        writes = (self._seal.record(closed=True),) if durable else ()
        if await self._tell(f'{{"event":"{event}",{facts}}}', *writes) and durable:
            self._seal.recorded()

    async def _tell(self, entry: str, *writes: Write) -> bool:
        """Whether it could be written: what is noticed must not bring down a daemon whose log stands still."""
        try:
            await settle(record(self._ledger, entry, *writes))
        except (AuditUnavailable, AuditDamaged, StoreError) as error:
            self._log.error("tamper.unrecorded", error)
            return False
        return True
