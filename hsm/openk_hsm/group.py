"""Several HSMs with the same root keys, as one lane: any of them serves, and one that fails costs nobody an error.

    submit ─▶ the member with the least waiting work ─▶ its workers
                 │ its last worker is lost, or does not answer for a while
                 └─▶ what waits there, and what was in flight, goes to another member: done again alone, as ever

A member's token proves before each use that its root keys are the group's (openk_hsm.kinship); one whose are not is
refused and reported, and the others serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import trio

from openk_hsm.calls import Calls
from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError, Unsupported
from openk_hsm.kinship import Kinship
from openk_hsm.lane import TICK, WorkerLane
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.link import Cold
from openk_hsm.pending import Pending, drive, failed, resolved
from openk_hsm.roots import FIRST_FREE_SLOT
from openk_hsm.seam import Generated, KeyHandle, KeySpec, Operation, Resident, TokenInfo

_WAIT_WITH: Final = (LaneState.RESTARTING, LaneState.STARTING)
_ORDER: Final = (
    LaneState.UP,
    LaneState.RESTARTING,
    LaneState.STARTING,
    LaneState.DOWN,
    LaneState.DIVERGED,
    LaneState.LATCHED,
    LaneState.SEALED,
)
"""Of several members' states, the one that says best how the group is."""


class GroupLane(Calls):
    """`openk_hsm.seam.Lane` over other lanes. `run` it in a nursery, which runs its members too."""

    def __init__(self, name: str, members: Sequence[WorkerLane], *, limits: Limits | None = None) -> None:
        """The group owns `members`: nobody else runs them or submits to them. The first is home to the token objects
        that were made before there was a group."""
        self.name = name
        self.members = tuple(members)
        self._limits = limits or Limits()
        self._kinship = Kinship()
        self._serving: list[WorkerLane] = []
        self._changed = trio.Event()
        self.handed_over = 0
        """Operations and calls that went from one member to another."""
        for member in members:
            member.entrance.prove = self._kinship.prove
            member.on_change = self._rearrange

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        key = operation.key
        if key is not None and key.slot >= FIRST_FREE_SLOT and isinstance(key.source, Resident):
            return self.members[0].submit(operation)
        return self._chosen().submit(operation)

    def queue(self, call: Cold) -> None:
        self._chosen().queue(call)

    def _chosen(self) -> WorkerLane:
        """The least loaded that serves; else one that may come back soon; else the one that says best what is wrong."""
        serving = self._serving
        if len(serving) == 1:
            return serving[0]
        if serving:
            return min(serving, key=_load)
        return min(self.members, key=lambda member: _ORDER.index(member.state))

    def _rearrange(self) -> None:
        """Who serves? What waits with those that do not goes to one that does."""
        serving = [member for member in self.members if member.workers and member.state is LaneState.UP]
        prompt = [member for member in serving if not member.stalled]
        self._serving = prompt or serving
        if self._serving:
            for member in self.members:
                if member not in self._serving:
                    handed = member.hand_over()
                    if handed:
                        self.handed_over += len(handed)
                        min(self._serving, key=_load).take_over(handed)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    # --- token objects: a member has its own, so a group makes none ---

    def generate_resident(self, spec: KeySpec, label: str, id_: bytes) -> Pending[Generated]:  # noqa: ARG002 - the seam's
        return failed(Unsupported("a resident key would be on one member of the group only: use protection wrapped"))

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return self.members[0].destroy_resident(label, id_)

    # --- what the group is ---

    def info(self) -> Pending[TokenInfo]:
        known = self._token()
        if known is not None:
            return resolved(known)
        answer: Pending[TokenInfo] = Pending()

        async def wait() -> TokenInfo:
            first = await self._chosen().info()
            return self._token() or first

        def finish(info: TokenInfo | None, error: Exception | None) -> None:
            if info is not None:
                answer.resolve(info)
            else:
                answer.fail(error or HsmError("a member of the group said nothing of its token"))

        drive(wait(), finish)
        return answer

    def _token(self) -> TokenInfo | None:
        """What all members can do that have been there; the rest is the first one's."""
        known = [member.token for member in self.members if member.token is not None]
        identity = self._kinship.identity
        if not known or identity is None:
            return None
        first = known[0]
        return replace(
            first,
            serial=" ".join(info.serial for info in known),
            identity=identity,
            resident=frozenset(),
            wrapped=frozenset(spec for spec in first.wrapped if all(spec in info.wrapped for info in known)),
            mechanisms=tuple(name for name in first.mechanisms if all(name in info.mechanisms for info in known)),
        )

    def health(self) -> LaneHealth:
        """Counts are sums; the state is that of the member that is best off."""
        each = [member.health() for member in self.members]
        best = min(each, key=lambda health: _ORDER.index(health.state))
        return LaneHealth(
            self.name,
            best.state,
            sum(health.workers for health in each),
            sum(health.queued for health in each),
            sum(health.in_flight for health in each),
            sum(health.restarts for health in each),
            sum(health.replayed for health in each),
            best.refusal,
            best.retry_after,
            quarantined=sum(health.quarantined for health in each),
            timed_out=sum(health.timed_out for health in each),
            busy=sum(health.busy for health in each),
            rejected=sum(health.rejected for health in each),
            trips=sum(health.trips for health in each),
            refusals=sum(health.refusals for health in each),
            batches=sum(health.batches for health in each),
            operations=sum(health.operations for health in each),
            loaded=sum(health.loaded for health in each),
        )

    @property
    def state(self) -> LaneState:
        return min((member.state for member in self.members), key=_ORDER.index)

    @property
    def workers(self) -> int:
        return sum(member.workers for member in self.members)

    @property
    def logged_out(self) -> int:
        return sum(member.logged_out for member in self.members)

    def unload(self, key: KeyHandle) -> None:
        for member in self.members:
            member.unload(key)

    def employ(self) -> None:
        for member in self.members:
            member.employ()

    # --- running ---

    async def run(self) -> None:
        """Run the members until cancelled."""
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.run)
            while True:
                self._rearrange()  # a member that stalls does not say so
                await trio.sleep(TICK)

    async def ready(self) -> TokenInfo:
        """Wait for the first member. Raises HsmError when none can be waited for."""
        while True:
            token = self._token()
            if token is not None:
                return token
            if not any(member.state in _WAIT_WITH for member in self.members):
                return await self._chosen().ready()
            await self._changed.wait()

    async def gathered(self, seconds: float) -> None:
        """Wait until every member was there once, but no longer than that."""
        with trio.move_on_after(seconds):
            while any(member.token is None for member in self.members):
                await self._changed.wait()

    @property
    def identities(self) -> frozenset[bytes]:
        """Of the members' tokens that have been there."""
        return frozenset(member.token.identity for member in self.members if member.token is not None)

    def expect(self, identity: bytes) -> None:
        """Serve with root keys of this identity only."""
        self._kinship.expect(identity)
        for member in self.members:
            if self._kinship.identity not in {None, identity}:
                member.give_up()

    # --- sealing: all members together ---

    def seal(self) -> None:
        for member in self.members:
            member.seal()

    def unseal(self) -> Pending[TokenInfo]:
        """Settled by the first member that answers; with an error where none can."""
        answer: Pending[TokenInfo] = Pending()
        left = [len(self.members)]

        def heard(info: TokenInfo | None, error: Exception | None) -> None:
            left[0] -= 1
            if answer.settled:
                return
            if info is not None:
                answer.resolve(self._token() or info)
            elif not left[0]:
                answer.fail(error or HsmError("no member of the group logged in"))

        for member in self.members:
            drive(_answer(member.unseal()), heard)
        return answer

    def admit(self) -> None:
        for member in self.members:
            if member.workers:
                member.admit()


async def _answer(pending: Pending[TokenInfo]) -> TokenInfo:
    return await pending


def _load(member: WorkerLane) -> float:
    return member.load
