"""Every back end that the suite runs on: one row each. A new one adds its row, and a fixture in conftest.py if it
needs something that lasts for the session.

A row opens a lane over the back end.  What the token lacks the suite learns from its `TokenInfo`, so a row says
nothing about capabilities.  A PKCS#11 module may be loaded once in a process, and SoftHSM2 is: all others run in a
worker (`behind_worker`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import pytest

from openk_hsm.dialling import Limits
from openk_hsm.inline import InlineLane
from openk_hsm.seam import Lane
from openk_hsm.software import SoftwareBackend
from tests.support.tokens import lane_over

Opener = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Lane]]


def behind_worker(fixture: str, *, deadline: float = 10.0) -> Opener:
    """A lane over the worker whose socket the session fixture of that name gives."""

    @asynccontextmanager
    async def opened(request: pytest.FixtureRequest) -> AsyncGenerator[Lane]:
        limits = Limits(handoff_bytes=768 << 10, deadline=deadline)
        async with lane_over([request.getfixturevalue(fixture)], limits=limits) as lane:
            await lane.ready()
            yield lane

    return opened


def inline(fixture: str) -> Opener:
    """The inline lane that the session fixture of that name gives."""

    @asynccontextmanager
    async def opened(request: pytest.FixtureRequest) -> AsyncGenerator[Lane]:
        lane: InlineLane = request.getfixturevalue(fixture)
        yield lane

    return opened


@asynccontextmanager
async def software(request: pytest.FixtureRequest) -> AsyncGenerator[Lane]:
    lane = InlineLane(SoftwareBackend(allow=True))
    yield lane
    lane.close()


BACK_ENDS: Final[dict[str, Opener]] = {
    "software": software,
    "softhsm-inline": inline("inline_softhsm"),
    "softhsm-worker": behind_worker("softhsm_worker"),
    "opencryptoki": behind_worker("opencryptoki_worker"),
    "nss-softokn": behind_worker("softokn_worker"),
    "yubihsm-emulator": behind_worker("yubihsm_worker"),
    "yubihsm-inline": inline("inline_yubihsm"),
}

WITHOUT_WRAPPED_KEYS: Final = frozenset({"yubihsm-emulator", "yubihsm-inline"})
"""Their keys live on the device or in the daemon's memory; tests of wrapped keys ask for `wrapping_bench`."""
