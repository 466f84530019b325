"""The lanes of the configured HSMs: started, sealed and unsealed, and how they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import trio

from openk_daemon.bindings import AnyLane, Bindings, Commit
from openk_daemon.claims import Claims
from openk_daemon.config import Config, Hsm
from openk_daemon.hsms import HOME, Device, Hsms
from openk_daemon.observe.health import OK, Finding, State
from openk_daemon.observe.log import Log
from openk_daemon.store.seam import Write
from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError
from openk_hsm.group import GroupLane
from openk_hsm.lane import WorkerLane
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.reactor import Reactor
from openk_hsm.seam import TokenInfo

_CLAIM: Final = 1.0
"""Seconds between two looks at whose tokens are whose."""
_TROUBLES: Final[Mapping[LaneState, str]] = {
    LaneState.LATCHED: "the token refused the PIN; it is not tried again: openk-hsm unlatch",
    LaneState.DIVERGED: "its root keys are not its group's; it is not used: docs/operations.md",
}


class Lanes:
    """Every configured HSM's lane, running in `nursery` until that is cancelled."""

    def __init__(
        self,
        nursery: trio.Nursery,
        config: Config,
        log: Log,
        reactor: Reactor,
        bindings: Bindings,
        *,
        sealed: bool = False,
    ) -> None:
        """`reactor`: one that runs. `bindings`: the store's. `sealed`: from the start; see `unseal`."""
        self._bindings = bindings
        self._config = config
        self.reactor = reactor
        make = partial(WorkerLane, report=partial(_report, log), sealed=sealed, reactor=reactor)
        self.single = {
            name: make(name, [str(path) for path in hsm.sockets], limits=_limits(config, hsm))
            for name, hsm in config.hsm.items()
            if hsm.sockets
        }
        """Every HSM with workers of its own, members of groups too."""
        members = {member for hsm in config.hsm.values() for member in hsm.group}
        self._lanes: dict[str, AnyLane] = {
            name: self.single.get(name) or self._group(name, hsm.group)
            for name, hsm in config.hsm.items()
            if name not in members
        }
        self.hsms = Hsms(self._lanes)
        for name, lane in self._lanes.items():
            if name != self.hsms.home or isinstance(lane, GroupLane):  # another token for the first ends the start
                bindings.expect(HOME if name == self.hsms.home else name, lane)
            nursery.start_soon(lane.run)
        self._claims = Claims(partial(_report_shared, log))
        nursery.start_soon(self._claim_for_ever)

    def _group(self, name: str, members: Sequence[str]) -> GroupLane:
        limits = _limits(self._config, self._config.hsm[members[0]])
        return GroupLane(name, [self.single[member] for member in members], limits=limits)

    async def _claim_for_ever(self) -> None:
        """Tokens, as soon as they are known; those that another daemon has, once it has gone."""
        try:
            while True:
                for name, lane in self.single.items():
                    if lane.token is not None:
                        self._claims.claim(name, lane.token.identity)
                await trio.sleep(_CLAIM)
        finally:
            self._claims.close()

    def sockets(self, name: str) -> list[str]:
        """Where the workers of an HSM listen, those of a group's members too."""
        hsm = self._config.hsm[name]
        of_members = [path for member in hsm.group for path in self._config.hsm[member].sockets]
        return [str(path) for path in (*hsm.sockets, *of_members)]

    @property
    def configured(self) -> Mapping[str, int]:
        """How many workers each HSM should have."""
        return {name: len(self.sockets(name)) for name in self._lanes}

    @property
    def devices(self) -> Sequence[Device]:
        """Every HSM, and behind each group its members. A group's token objects are on its first member."""
        found: list[Device] = []
        for name, lane in self._lanes.items():
            recorded = self.hsms.recorded(name)
            found.append(Device(name, lane, recorded, len(self.sockets(name))))
            for place, member in enumerate(self._config.hsm[name].group):
                workers = len(self.sockets(member))
                found.append(Device(member, self.single[member], recorded, workers, name, residents=place == 0))
        return found

    @property
    def missing(self) -> int:
        """Workers that should be there and are not."""
        return sum(max(0, len(self.sockets(name)) - lane.workers) for name, lane in self.single.items())

    def readings(self) -> Sequence[LaneHealth]:
        """Of every lane that has workers: counts add up."""
        return [lane.health() for lane in self.single.values()]

    def finding(self) -> Finding:
        """Whether every HSM has the workers it should have, members of groups each for itself."""
        troubles: list[str] = []
        latched = False
        for name, lane in self.single.items():
            wanted, there = len(self.sockets(name)), lane.workers
            trouble = _TROUBLES.get(lane.state)
            if trouble is not None:
                troubles.append(f"{name}: {trouble}")
                latched = True
            elif there < wanted:
                troubles.append(f"{wanted - there} of {wanted} HSM workers of {name} are missing")
        for name, pid in self._claims.shared.items():
            other = f"process {pid}" if pid else "a process of this host"
            troubles.append(f"{name}: another openkd ({other}) uses the same token: give each one its own")
        served = all(lane.workers for lane in self._lanes.values())
        bad = State.FAILED if latched and not served else State.DEGRADED
        return Finding(bad, "; ".join(troubles)) if troubles else OK

    async def ready(self) -> TokenInfo:
        """Wait for the first HSM, without which nothing can be signed. Raises HsmError. The others may come later."""
        return await self._lanes[self.hsms.home].ready()

    def seal(self) -> None:
        """Every worker of every HSM logs out; what waits and what is in flight fails with daemon.sealed."""
        for lane in self._lanes.values():
            lane.seal()

    async def unseal(self) -> list[str]:
        """The HSMs whose workers have logged in anew. Raises HsmError where the first has not; another that has not
        stays sealed, and joins when it is unsealed again. Nothing is served before `admit`."""
        asked = {name: self._lanes[name].unseal() for name in self.sealed}
        arrived: list[str] = []
        failure: HsmError | None = None
        for name, pending in asked.items():
            try:
                await pending
            except HsmError as error:
                failure = error if name == self.hsms.home else failure
            else:
                arrived.append(name)
        if failure is not None:
            self.seal()
            raise failure
        return arrived

    def admit(self) -> None:
        """Serve with the HSMs that are logged in."""
        for lane in self._lanes.values():
            if lane.workers:
                lane.admit()

    @property
    def sealed(self) -> Sequence[str]:
        """Names of the HSMs whose workers are sealed, told to or by themselves (one noticed a tracer, say)."""
        return [name for name, lane in self._lanes.items() if lane.state is LaneState.SEALED]

    @property
    def logged_out(self) -> int:
        """Workers that said that they are logged out."""
        return sum(lane.logged_out for lane in self._lanes.values())

    def expect(self, identity: bytes) -> None:
        """Hold the first HSM to the token of this identity."""
        self._lanes[self.hsms.home].expect(identity)

    async def due_binding(self, token: TokenInfo) -> Write | None:
        """What binds the store to the first HSM, or None. Raises Foreign where it is bound to another: asked before the
        log is recovered, which another token's key could not check."""
        return await self._bindings.due(HOME, self._lanes[self.hsms.home], token)

    async def bind_others(self, commit: Commit) -> None:
        await self._bindings.bind_others(self.hsms, self._lanes, commit)

    def employ(self) -> None:
        """Something to do for workers that have nothing, in the middle of many requests. All of it is handed out by
        itself once a round of the reactor."""
        for lane in self._lanes.values():
            lane.employ()


def _limits(config: Config, hsm: Hsm) -> Limits:
    return Limits(
        handoff_bytes=hsm.handoff_bytes,
        deadline=hsm.operation_seconds,
        generate_deadline=hsm.generate_seconds,
        hang=hsm.deadline_seconds,
        breaker=hsm.breaker_seconds,
        per_client=config.limits.queue_per_client,
        total=config.limits.queue,
        keep_alive=hsm.keep_alive_seconds,
        deaths=hsm.quarantine_deaths,
        stall=hsm.stall_seconds,
        quarantine=hsm.quarantine_seconds,
    )


def _report_shared(log: Log, name: str, pid: int) -> None:
    log.warning("hsm.shared", None, hsm=name, other=pid, text="another openkd of this host uses the same token")


def _report(log: Log, event: str, fields: Mapping[str, object]) -> None:
    log.warning(event.replace(" ", "."), None, **fields)
