"""Whatever a request's flow does is known for its request's, whoever settles whom, and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from openk_hsm.dialling import Limits
from openk_hsm.errors import HsmError
from openk_hsm.lane import WorkerLane
from openk_hsm.link import Cold
from openk_hsm.pending import Pending, begin, drive
from openk_hsm.quarantine import Quarantine
from openk_hsm.seam import Algorithm as Alg
from openk_hsm.seam import KeySpec, OpCode, Operation, Purpose, Replay
from openk_hsm.serving import NAMED_MOST, RUN, SERVING, for_requests, request_id
from openk_hsm.waiting import Waiting

FLOWS = 5


@given(st.lists(st.tuples(st.integers(0, FLOWS - 1), st.lists(st.integers(0, FLOWS - 1), max_size=3)), max_size=40))
def test_each_step_of_a_flow_is_its_requests(script: Sequence[tuple[int, Sequence[int]]]) -> None:
    """Flows that settle one another in the middle of their steps."""
    gates: list[Pending[Sequence[int]]] = [Pending() for _ in range(FLOWS)]
    ended = [0]
    seen: list[tuple[int, int]] = []

    def settle(which: int, then: Sequence[int]) -> None:
        gate, gates[which] = gates[which], Pending()
        gate.resolve(then)

    async def flow(mine: int) -> None:
        while True:
            others = await gates[mine]
            seen.append((SERVING.request, mine + 1))
            if not others:
                continue
            settle(others[0], others[1:])
            seen.append((SERVING.request, mine + 1))
            inner: Pending[None] = begin(_look(seen, mine + 1))
            await inner

    for mine in range(FLOWS):
        drive(flow(mine), lambda _value, _error: ended.__setitem__(0, 1), mine + 1)
        assert SERVING.request == 0
    for which, then in script:
        if which not in then and len(set(then)) == len(then):
            settle(which, then)
        assert SERVING.request == 0
    assert ended == [0]
    assert all(said == meant for said, meant in seen)


async def _look(seen: list[tuple[int, int]], meant: int) -> None:
    """Begun by another flow, without a word of whose it is."""
    seen.append((SERVING.request, meant))


def test_a_flow_that_fails_is_over_too() -> None:
    failures: list[Exception | None] = []

    async def failing() -> None:
        raise HsmError("no")

    drive(failing(), lambda _value, error: failures.append(error), 7)
    assert isinstance(failures[0], HsmError)
    assert SERVING.request == 0


def test_what_a_flow_asks_of_a_lane_is_marked_with_its_request() -> None:
    lane = WorkerLane("main", [], limits=Limits())
    kept: list[Operation] = []
    calls: list[Cold] = []
    lane.queue = calls.append  # type: ignore[method-assign]  # to see what is queued

    async def ask() -> None:
        kept.append(Operation(OpCode.RANDOM, 16))
        lane.submit(kept[-1])
        lane.generate_resident(KeySpec(Alg.P256, Purpose.SIGN), "label", b"id")

    for number in (0, 7, 2**64 - 1):
        drive(ask(), lambda _value, _error: None, number)
    assert [operation.request for operation in kept] == [0, 7, 2**64 - 1]
    assert [call.request for call in calls] == [0, 7, 2**64 - 1]


def test_ids_are_a_run_and_a_count() -> None:
    assert request_id(0x18, 0x71FD0A6E) == "71fd0a6e-18"
    assert request_id(1, 5) == "00000005-1"
    assert request_id(3) == f"{RUN:08x}-3"


def test_a_line_about_many_names_the_first_and_counts() -> None:
    assert for_requests([0, 0]) == {}
    assert for_requests([0, 5, 5]) == {"request": request_id(5)}
    assert for_requests([6, 5, 6]) == {
        "request": request_id(6), "requests": [request_id(6), request_id(5)], "requests_count": 2,
    }  # fmt: skip
    many = for_requests(range(1, 100))
    assert many["requests"] == [request_id(number) for number in range(1, NAMED_MOST + 1)]
    assert many["requests_count"] == 99


def test_what_is_quarantined_names_its_request() -> None:
    told: list[dict[str, object]] = []
    limits = Limits()
    waiting = Waiting(limits, Quarantine(60.0, lambda event, facts: told.append({"event": event, **facts})))
    operation = Operation(OpCode.RANDOM, 16, client=1, replays=limits.deaths - 1, request=0x18)
    waiting.save([operation], [], 0.0)
    waiting.save([], [Cold("generate", (), Replay.PURE, 1.0, 1.0, replays=limits.deaths - 1, request=0x19)], 0.0)
    assert [(line["event"], line["operation"], line["request"]) for line in told] == [
        ("hsm request quarantined", "RANDOM", request_id(0x18)),
        ("hsm request quarantined", "generate", request_id(0x19)),
    ]
