"""Several HSMs with the same root keys as one lane: failover, sharing, and members that are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from openk_hsm.dialling import Limits
from openk_hsm.errors import Unavailable, Unsupported, Untrusted
from openk_hsm.group import GroupLane
from openk_hsm.lane import WorkerLane
from openk_hsm.lane_health import LaneState
from openk_hsm.roots import AUDIT_KEY, ROOT, ROOT_MAC
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Wrapped
from openk_hsm.software import SoftwareBackend
from tests.support.tokens import answer, start_worker

HANDOFF = 256 << 10
HMAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)


def mac(data: bytes = b"q", key: KeyHandle = ROOT_MAC, client: int = 1) -> Operation:
    return Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, data, client=client)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - states of other processes, which set no event here
            await trio.sleep(0.002)


@dataclass
class Tokens:
    """Software HSMs in `folder`, each with one worker: `same` root keys, or its own."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])

    def start(self, name: str, *, like: str | None = None) -> None:
        """`like`: with the root keys of that token; else with its own, made once."""
        if like is not None:
            shutil.copy(self.state(like), self.state(name))
        self.furnish(name)
        uri = f"software:state={self.state(name)};hang=hang"
        pin = self.folder / "pin"
        pin.write_text("1234")
        self.processes[name] = start_worker(uri, self.socket(name), pin, os.environ, "--allow-software")

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def furnish(self, name: str) -> list[dict[str, str]]:
        """Its objects as they lie in its file, root keys at least."""
        SoftwareBackend(allow=True, state=self.state(name)).open(memoryview(bytearray(64)), 0, lambda: memoryview(b""))
        rows: list[dict[str, str]] = json.loads(self.state(name).read_bytes())
        return rows

    def socket(self, name: str) -> Path:
        return self.folder / f"{name}.sock"

    def state(self, name: str) -> Path:
        return self.folder / f"{name}.state"


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    made = Tokens(tmp_path)
    yield made
    for name in list(made.processes):
        made.kill(name)


@asynccontextmanager
async def group_of(
    tokens: Tokens, names: Sequence[str] = ("left", "right"), reports: list[str] | None = None, **limits: float
) -> AsyncGenerator[GroupLane]:
    chosen = Limits(handoff_bytes=HANDOFF, **limits)  # type: ignore[arg-type]  # numbers for numbers
    members = [
        WorkerLane(
            name,
            [str(tokens.socket(name))],
            limits=chosen,
            report=lambda event, facts: (reports if reports is not None else []).append(f"{event} {dict(facts)}"),
        )
        for name in names
    ]
    group = GroupLane("main", members, limits=chosen)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.run)
        yield group
        nursery.cancel_scope.cancel()


async def both_serve(group: GroupLane) -> None:
    await until(lambda: all(member.state is LaneState.UP for member in group.members))


async def test_both_members_do_the_work(tokens: Tokens) -> None:
    tokens.start("left")
    tokens.start("right", like="left")
    async with group_of(tokens) as group:
        await both_serve(group)
        made = await answer(group.generate(HMAC, ROOT, b"c"))
        key = KeyHandle(100, HMAC, Wrapped(ROOT, b"c", made.blob or b""))
        done = [0, 0]

        async def work(client: int) -> None:
            for _ in range(100):
                before = [member.load for member in group.members]
                pending = group.submit(mac(key=key, client=client))
                after = [member.load for member in group.members]
                done[0 if after[0] > before[0] else 1] += 1
                assert await answer(pending)

        async with trio.open_nursery() as nursery:
            for client in range(16):
                nursery.start_soon(work, client)
        assert min(done) > 0.35 * sum(done), done
        assert len({await answer(group.submit(mac(key=key))) for _ in range(20)}) == 1


async def test_a_member_that_dies_under_load_costs_no_error(tokens: Tokens) -> None:
    tokens.start("left")
    tokens.start("right", like="left")
    async with group_of(tokens, deadline=5.0) as group:
        await both_serve(group)
        expected = await answer(group.submit(mac()))
        stop = False
        answered = [0]

        async def work(client: int) -> None:
            while not stop:
                waiting = [group.submit(mac(client=client)) for _ in range(8)]
                for pending in waiting:
                    assert await answer(pending) == expected
                    answered[0] += 1
                assert (await answer(group.generate(HMAC, ROOT, b"c"))).blob

        async with trio.open_nursery() as nursery:
            for client in range(1, 9):
                nursery.start_soon(work, client)
            for victim in ("left", "right", "left", "right"):
                await trio.sleep(0.1)
                await trio.to_thread.run_sync(tokens.kill, victim)
                await until(lambda: group.health().workers == 1)
                before = answered[0]
                await until(lambda: answered[0] > before + 200)  # noqa: B023 - awaited before it changes
                await trio.to_thread.run_sync(tokens.start, victim)
                await both_serve(group)
            stop = True
        assert group.handed_over > 0
        assert group.state is LaneState.UP


async def test_what_waits_for_one_member_is_done_by_the_one_that_comes(tokens: Tokens) -> None:
    tokens.start("left")
    tokens.start("right", like="left")
    async with group_of(tokens) as group:
        await both_serve(group)
        expected = await answer(group.submit(mac()))
        tokens.kill("left")
        tokens.kill("right")
        await until(lambda: group.health().workers == 0)
        waiting = [group.submit(mac()) for _ in range(50)]
        making = group.generate(HMAC, ROOT, b"c")
        await trio.to_thread.run_sync(tokens.start, "right")
        with trio.fail_after(5):
            assert {await answer(pending) for pending in waiting} == {expected}
            assert (await answer(making)).blob


async def test_a_member_with_other_root_keys_is_refused_and_told(tokens: Tokens) -> None:
    tokens.start("left")
    reports: list[str] = []
    async with group_of(tokens, reports=reports) as group:
        await group.ready()
        expected = await answer(group.submit(mac()))
        tokens.start("right")
        right = group.members[1]
        await until(lambda: right.state is LaneState.DIVERGED)
        assert group.state is LaneState.UP
        assert {await answer(group.submit(mac())) for _ in range(50)} == {expected}
        assert right.health().refusal == "hsm.untrusted"
        assert any("another root mac key" in report for report in reports)
        tokens.kill("left")
        await until(lambda: group.health().workers == 0)
        tokens.kill("right")
        tokens.start("right", like="left")  # repaired: it comes back without a restart of the daemon
        with trio.fail_after(5):
            assert await answer(group.submit(mac())) == expected


@pytest.mark.parametrize("part", ["openk-root-kw", "openk-root-data", "openk-root-mac", "openk-audit"])
async def test_one_other_root_key_is_enough(tokens: Tokens, part: str) -> None:
    tokens.start("left")
    other = {row["label"]: row for row in tokens.furnish("right")}
    mixed = [other[row["label"]] if row["label"] == part else row for row in tokens.furnish("left")]
    tokens.state("right").write_text(json.dumps(mixed))
    async with group_of(tokens) as group:
        await group.ready()
        tokens.start("right")
        await until(lambda: group.members[1].state is LaneState.DIVERGED)


async def test_a_group_knows_itself_again(tokens: Tokens) -> None:
    tokens.start("left")
    tokens.start("right", like="left")
    async with group_of(tokens) as group:
        identity = (await group.ready()).identity
    async with group_of(tokens) as group:
        group.expect(identity)
        assert (await group.ready()).identity == identity
    tokens.start("stranger")
    async with group_of(tokens, ["stranger", "left"]) as group:
        group.expect(identity)
        await until(lambda: [member.state for member in group.members] == [LaneState.DIVERGED, LaneState.UP])
        assert await answer(group.submit(mac()))
        assert (await answer(group.info())).identity == identity


async def test_all_members_down_is_down_at_once(tokens: Tokens) -> None:
    async with group_of(tokens, breaker=0.2) as group:
        waiting = group.submit(mac())
        with trio.fail_after(2), pytest.raises(Unavailable):
            await answer(waiting)
        await until(lambda: group.state is LaneState.DOWN)
        for pending in (group.submit(mac()), group.generate(HMAC, ROOT, b"c"), group.info()):
            assert pending.settled
            with pytest.raises(Unavailable):
                pending.result()
        with pytest.raises(Unavailable):
            await group.ready()


async def test_a_hung_member_holds_up_only_what_it_has(tokens: Tokens) -> None:
    tokens.start("left")
    tokens.start("right", like="left")
    async with group_of(tokens, stall=0.3, hang=5.0) as group:
        await both_serve(group)
        hanging = Operation(OpCode.SIGN, 64, AUDIT_KEY, Mechanism.EDDSA, b"hang here", client=9)
        group.members[0].submit(hanging)
        await trio.sleep(0.8)
        with trio.fail_after(2):
            for _ in range(300):
                assert await answer(group.submit(mac()))
        assert not hanging.pending.settled


async def test_a_group_makes_no_token_objects(tokens: Tokens) -> None:
    tokens.start("left")
    async with group_of(tokens) as group:
        info = await group.ready()
        assert info.resident == frozenset()
        with pytest.raises(Unsupported):
            await answer(group.generate_resident(HMAC, "label", b"id"))
        assert await answer(group.objects())


async def test_a_lone_untrusted_member_is_told_at_once(tokens: Tokens) -> None:
    tokens.start("left")
    async with group_of(tokens, ["left"]) as group:
        group.expect(bytes(32))
        with trio.fail_after(5):
            with pytest.raises(Untrusted):
                await answer(group.submit(mac()))
