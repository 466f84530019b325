"""One suite, several back ends: `back_ends.py` lists them, the fixtures here keep what lasts for a session."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from openk_hsm.errors import Unsupported
from openk_hsm.inline import InlineLane
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.roots import FIRST_FREE_SLOT, ROOT
from openk_hsm.seam import Generated, KeyHandle, KeySpec, Lane, Resident, TokenInfo, Wrapped, Wrapper
from openk_hsm.uri import parse_uri
from tests.hsm_contract.back_ends import BACK_ENDS, WITHOUT_WRAPPED_KEYS
from tests.support.foreign_tokens import ForeignToken, opencryptoki, serving, softokn
from tests.support.shim import Shim, compile_shim
from tests.support.tokens import Token, answer, make_token, worker
from tests.support.yubihsm import EmulatedDevice, emulated, initialise, lane_of, make_roots
from tests.support.yubihsm_inline import InlineDevice

SLOTS = count(FIRST_FREE_SLOT)


@dataclass
class Bench:
    """A lane under test, and keys made on it. Those on the token itself are destroyed at the end."""

    lane: Lane
    info: TokenInfo
    public: dict[int, bytes] = field(default_factory=dict)
    made: list[Resident] = field(default_factory=list)

    async def key(self, spec: KeySpec, wrapper: Wrapper = ROOT, context: bytes = b"context") -> KeyHandle:
        """A fresh key: wrapped, or resident where the token has it only so."""
        if spec not in self.info.wrapped and spec in self.info.resident:
            return await self.resident(spec)
        made = await answer(self.lane.generate(spec, wrapper, context))
        assert made.blob is not None
        return self._keep(spec, Wrapped(wrapper, context, made.blob), made)

    async def has(self, spec: KeySpec) -> bool:
        """Whether the token makes such keys at all; where it does not, that it refuses to."""
        if spec in self.info.wrapped | self.info.resident:
            return True
        with pytest.raises(Unsupported):
            await answer(self.lane.generate(spec, ROOT, b"c"))
        with pytest.raises(Unsupported):
            await answer(self.lane.generate_resident(spec, "not possible", b"here"))
        return False

    async def resident(self, spec: KeySpec) -> KeyHandle:
        """A fresh token object."""
        name = f"contract-{next(SLOTS)}"
        source = Resident(name, name.encode())
        made = await answer(self.lane.generate_resident(spec, source.label, source.id))
        self.made.append(source)
        return self._keep(spec, source, made)

    def _keep(self, spec: KeySpec, source: Resident | Wrapped, made: Generated) -> KeyHandle:
        handle = KeyHandle(next(SLOTS), spec, source)
        if made.public is not None:
            self.public[handle.slot] = made.public
        return handle

    async def destroy(self) -> None:
        for source in self.made:
            await answer(self.lane.destroy_resident(source.label, source.id))


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


@pytest.fixture(scope="session")
def yubihsm_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An emulated YubiHSM that logs every command and refuses them when its log is full; openk may do what it needs."""
    folder = tmp_path_factory.mktemp("yubihsm")
    with emulated() as device:
        device.add_authentication_key()
        device.audit(forced=True)
        pin = initialise(device, folder)
        with worker(device.uri(), folder / "s", pin, os.environ):
            yield folder / "s"


@pytest.fixture(scope="session")
def inline_yubihsm() -> Iterator[InlineLane]:
    """An emulated YubiHSM in this process: no connector between."""
    lane = InlineDevice().lane()
    yield lane
    lane.close()


@pytest.fixture(scope="session")
def opencryptoki_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignToken]:
    """With root keys."""
    with opencryptoki(tmp_path_factory.mktemp("opencryptoki") / "t") as token:
        token.cli("init", *token.access)
        yield token


@pytest.fixture(scope="session")
def softokn_token(tmp_path_factory: pytest.TempPathFactory) -> ForeignToken:
    """With root keys."""
    token = softokn(tmp_path_factory.mktemp("softokn") / "t")
    token.cli("init", *token.access)
    return token


@pytest.fixture(scope="session")
def opencryptoki_worker(opencryptoki_token: ForeignToken) -> Iterator[Path]:
    with serving(opencryptoki_token) as socket:
        yield socket


@pytest.fixture(scope="session")
def softokn_worker(softokn_token: ForeignToken) -> Iterator[Path]:
    with serving(softokn_token) as socket:
        yield socket


@pytest.fixture(scope="session")
def shim_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim(shim_module: Path, token: Token) -> Shim:
    """A token of the test's own, behind a module that can be spoilt."""
    return Shim(shim_module, token)


@pytest.fixture(scope="session")
def yubihsm() -> Iterator[EmulatedDevice]:
    """A device with openk's authentication key and its root keys, which tests leave as they found it."""
    with emulated() as device:
        device.add_authentication_key()
        with lane_of(device, complete=False) as lane:
            make_roots(lane)
        yield device


@pytest.fixture
def device(yubihsm: EmulatedDevice) -> Iterator[EmulatedDevice]:
    yield yubihsm
    yubihsm.fault("")


@pytest.fixture(params=list(BACK_ENDS))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with _opened(request) as under_test:
        yield under_test


@pytest.fixture(params=[name for name in BACK_ENDS if name not in WITHOUT_WRAPPED_KEYS])
async def wrapping_bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with _opened(request) as under_test:
        yield under_test


@asynccontextmanager
async def _opened(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with BACK_ENDS[request.param](request) as lane:
        under_test = Bench(lane, await answer(lane.info()))
        yield under_test
        await under_test.destroy()


@pytest.fixture
def token(template_token: Token, tmp_path: Path) -> Token:
    return template_token.copy(tmp_path / "token")
