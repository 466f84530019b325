"""What a lane says of itself when it does not serve."""

from __future__ import annotations

import pytest
import trio

from openk_hsm.condition import LONGEST_DELAY, SHORTEST_DELAY
from openk_hsm.dialling import Limits
from openk_hsm.errors import TokenMissing, Unavailable
from openk_hsm.lane import WorkerLane


@pytest.mark.parametrize(
    ("told", "again"), [(None, LONGEST_DELAY), (0.0, SHORTEST_DELAY), (0.05, SHORTEST_DELAY), (2.5, 2.5)]
)
async def test_nobody_is_told_to_come_again_at_once(told: float | None, again: float) -> None:
    lane = WorkerLane("main", [], limits=Limits(breaker=0.0))
    async with trio.open_nursery() as nursery:
        lane._refuse(TokenMissing("it is gone", retry_after=told), "/nowhere")
        nursery.start_soon(lane.run)
        with trio.fail_after(10), pytest.raises((TokenMissing, Unavailable)) as refused:
            await lane.ready()
        assert refused.value.retry_after == again
        assert lane.health().retry_after == again
        nursery.cancel_scope.cancel()
