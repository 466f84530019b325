"""One suite, several back ends: software and SoftHSM2 in this process, SoftHSM2 behind a lane and a worker."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from openk_hsm.inline import InlineLane
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.seam import FIRST_FREE_SLOT, ROOT, KeyHandle, KeySpec, Lane, TokenInfo, Wrapped, Wrapper
from openk_hsm.software import SoftwareBackend
from openk_hsm.uri import parse_uri
from tests.support.tokens import Token, answer, lane_over, make_token, worker

SLOTS = count(FIRST_FREE_SLOT)


@dataclass
class Bench:
    """A lane under test, and keys made on it."""

    lane: Lane
    info: TokenInfo
    public: dict[int, bytes] = field(default_factory=dict)

    async def key(self, spec: KeySpec, wrapper: Wrapper = ROOT, context: bytes = b"context") -> KeyHandle:
        """A fresh wrapped key."""
        made = await answer(self.lane.generate(spec, wrapper, context))
        assert made.blob is not None
        handle = KeyHandle(next(SLOTS), spec, Wrapped(wrapper, context, made.blob))
        if made.public is not None:
            self.public[handle.slot] = made.public
        return handle


@pytest.fixture(scope="session")
def template_token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    return make_token(tmp_path_factory.mktemp("token") / "t")


@pytest.fixture(scope="session")
def inline_softhsm(template_token: Token, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InlineLane]:
    """The only use of a module in the tests' own process."""
    token = template_token.copy(tmp_path_factory.mktemp("inline") / "t")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(token.folder / "softhsm2.conf")
    pin = bytearray(token.pin_file.read_bytes().strip())
    backend = Pkcs11Backend(parse_uri(token.uri))
    lane = InlineLane(backend, pin=lambda: memoryview(pin))
    yield lane
    lane.close()
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture(scope="session")
def softhsm_worker(template_token: Token, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    token = template_token.copy(tmp_path_factory.mktemp("worker") / "t")
    socket = token.folder / "s"
    with worker(token.uri, socket, token.pin_file, token.environment):
        yield socket


@pytest.fixture(params=["software", "softhsm-inline", "softhsm-worker"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "software":
        lane = InlineLane(SoftwareBackend(allow=True))
        yield Bench(lane, await answer(lane.info()))
        lane.close()
    elif request.param == "softhsm-inline":
        inline: InlineLane = request.getfixturevalue("inline_softhsm")
        yield Bench(inline, await answer(inline.info()))
    else:
        async with lane_over([request.getfixturevalue("softhsm_worker")]) as remote:
            yield Bench(remote, await remote.ready())


@pytest.fixture
def token(template_token: Token, tmp_path: Path) -> Token:
    return template_token.copy(tmp_path / "token")
