"""What devices have to tell a person: asked for every few seconds, logged, counted, and put into the audit log once.

A YubiHSM's worker follows its device's own log; that somebody else used the device is an alarm. The number of the last
notice that was recorded is kept in the store, in the same unit as its audit entry: none is told twice, none is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import trio

from openk_daemon.hierarchy.records import FORMAT, HSM_NOTICE, NoticeBody, decode, encode
from openk_daemon.hierarchy.sealing import Draft, Sealing
from openk_daemon.hierarchy.vault_keys import Sealer
from openk_daemon.observe.exposition import Kind, Labels
from openk_daemon.observe.health import OK, Finding, Health, State
from openk_daemon.observe.log import Log
from openk_daemon.observe.metrics import Metrics
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Store, StoreError, Write
from openk_hsm.errors import HsmError
from openk_hsm.pending import Flow, Pending, settle
from openk_hsm.seam import Lane, Notice

T = TypeVar("T")
PERIOD: Final = 5.0
"""Seconds between two questions; a device that logs keeps 62 entries, and its worker drains it by itself too."""

Commit = Callable[[str, Write], Flow[None]]
"""Makes an audit entry and a write durable together."""


def _of(ask: Callable[[], Pending[T]]) -> Flow[T]:
    async def wait() -> T:
        return await ask()

    return wait()


class Notices:
    """`run` it while the daemon serves. `lanes`: by configured name, one for each device."""

    def __init__(
        self, lanes: Mapping[str, Lane], store: Store, sealing: Sealing, root: Sealer, commit: Commit, log: Log
    ) -> None:
        self._lanes = lanes
        self._store = store
        self._sealing = sealing
        self._root = root
        self._commit = commit
        self._log = log
        self.alarms: dict[str, int] = dict.fromkeys(lanes, 0)
        """Since the daemon started."""

    def watch(self, metrics: Metrics, health: Health) -> None:
        metrics.watch("hsm_alarms_total", "Times that a device was used by somebody else.", self._read, Kind.COUNTER)
        health.add("hsm-log", self._find)

    def _read(self) -> Sequence[tuple[Labels, float]]:
        return [((("lane", name),), count) for name, count in self.alarms.items()]

    def _find(self) -> Finding:
        alarmed = [name for name, count in self.alarms.items() if count]
        if not alarmed:
            return OK
        said = f"the log of the device behind {', '.join(alarmed)} has entries that are not openk's: see the audit log"
        return Finding(State.DEGRADED, said)

    async def run(self) -> None:
        while True:
            for name, lane in self._lanes.items():
                try:
                    await self.ask(name, lane)
                except HsmError:
                    continue  # the lane reports its own state; asked again soon
                except (StoreError, Refusal) as error:
                    self._log.error("hsm.notices", error, lane=name)
            await trio.sleep(PERIOD)

    async def ask(self, name: str, lane: Lane) -> int:
        """Record what is new; how many notices that were. Raises HsmError, StoreError, Refusal(store.damaged)."""
        identity = (await settle(_of(lane.info))).identity
        revision, after = await settle(self._recorded(identity))
        fresh = await settle(_of(lambda: lane.notices(after)))
        for notice in fresh:
            await settle(self._record(name, identity, revision, notice))
            revision += 1
            if notice.alarm:
                self.alarms[name] += 1
                self._log.critical("hsm.alarm", None, lane=name, text=notice.text)
            else:
                self._log.warning("hsm.notice", None, lane=name, text=notice.text)
        return len(fresh)

    async def _recorded(self, identity: bytes) -> tuple[int, int]:
        """The record's version, and the last notice's number."""
        record = await self._store.read(HSM_NOTICE, identity)
        if record is None:
            return 0, 0
        (plain,) = await self._sealing.open(self._root, [record])
        return record.version, decode(NoticeBody, plain).number

    async def _record(self, name: str, identity: bytes, revision: int, notice: Notice) -> None:
        body = encode(NoticeBody(FORMAT, notice.number))
        (write,) = await self._sealing.seal(self._root, [Draft(HSM_NOTICE, identity, revision, body)])
        entry = {"event": "hsm.notice", "hsm": name, "at": notice.at, "alarm": notice.alarm, "text": notice.text}
        await self._commit(json.dumps(entry, separators=(",", ":")), write)
