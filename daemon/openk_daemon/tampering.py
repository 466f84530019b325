"""What openkd does about signs that somebody is at work here: a process that traces it, a worker that sealed itself.

The kernel is asked who traces us, over and over (50 microseconds a look). It would tell, on a netlink socket that
confined services cannot have (docs/threat-model.md, N1).
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

PERIOD: Final = 0.1
"""Seconds between two looks: who attaches and leaves in between is not seen."""


class Traced(Exception):
    """Somebody traces this process, and the configuration says that it ends then."""


async def record(ledger: Ledger, entry: str, *writes: Write) -> None:
    """An entry of the daemon's own, durable."""
    await ledger.commit(entry, writes)


class Tampering:
    """Looks ten times a second. Not for threads."""

    def __init__(self, seal: Seal, lanes: Lanes, ledger: Ledger, log: Log, config: Callable[[], Config]) -> None:
        """`config`: what is in force."""
        self._seal = seal
        self._lanes = lanes
        self._ledger = ledger
        self._log = log
        self._config = config
        self._tracer = 0

    async def run(self) -> None:
        """Until cancelled. Raises Traced where the configuration says `exit`."""
        while True:
            await trio.sleep(PERIOD)
            await self.look()

    def bars(self) -> int:
        """The process for whose sake openk stays sealed, 0 for none: it would see what is unsealed."""
        return tracer() if self._config().hardening.on_tracer != "log" else 0

    async def look(self) -> None:
        """Raises Traced where the configuration says `exit`."""
        reaction = self._config().hardening.on_tracer
        found = tracer()
        if found != self._tracer:
            self._tracer = found
            if found:
                self._log.critical("tamper.traced", None, tracer=found, reaction=reaction)
                if reaction == "log":
                    await self._tell(f'{{"event":"tamper.traced","tracer":{found}}}')
                else:
                    await self.seal_now("tamper.traced", f'"tracer":{found}', durable=reaction == "seal")
                if reaction == "exit":
                    raise Traced(f"process {found} traces openkd, and hardening.on_tracer is exit")
        home = self._lanes.hsms.home
        if not self._seal.closed and home in self._lanes.sealed:
            self._log.critical("tamper.worker_sealed", None, hsm=home)
            await self.seal_now("tamper.worker_sealed", f'"hsm":"{home}"')

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
