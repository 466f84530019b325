"""Token objects: made once, found by label and id, refused when doubled, destroyed idempotently."""

from __future__ import annotations

import pytest

from openk_hsm.errors import HsmError, Untrusted
from openk_hsm.lane_health import LaneState
from openk_hsm.roots import ROOT_KW
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, Mechanism, OpCode, Operation, Purpose, Resident
from tests.hsm_contract.conftest import SLOTS, Bench
from tests.support.tokens import answer

MAC = KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC)


async def test_a_resident_key_lives_until_it_is_destroyed(bench: Bench) -> None:
    made = await answer(bench.lane.generate_resident(MAC, "my key", b"\x01\x00\xff"))
    assert made.blob is None
    try:
        assert ("my key", b"\x01\x00\xff") in {(o.label, o.id) for o in await answer(bench.lane.objects())}
        key = KeyHandle(next(SLOTS), MAC, Resident("my key", b"\x01\x00\xff"))
        operation = Operation(OpCode.MAC, 32, key, Mechanism.HMAC_SHA_256, b"q")
        assert len(await answer(bench.lane.submit(operation)) or b"") == 32  # type: ignore[arg-type]  # bytes
    finally:
        assert await answer(bench.lane.destroy_resident("my key", b"\x01\x00\xff"))
    assert not await answer(bench.lane.destroy_resident("my key", b"\x01\x00\xff"))
    assert "my key" not in {found.label for found in await answer(bench.lane.objects())}
    gone = KeyHandle(next(SLOTS), MAC, Resident("my key", b"\x01\x00\xff"))
    with pytest.raises(HsmError):
        await answer(bench.lane.submit(Operation(OpCode.MAC, 32, gone, Mechanism.HMAC_SHA_256, b"q")))


async def test_a_second_key_of_the_same_name_is_refused(bench: Bench) -> None:
    await answer(bench.lane.generate_resident(MAC, "twin", b"id"))
    try:
        with pytest.raises(Untrusted):
            await answer(bench.lane.generate_resident(MAC, "twin", b"id"))
        await answer(bench.lane.generate_resident(MAC, "twin", b"other id"))
    finally:
        assert await answer(bench.lane.destroy_resident("twin", b"id"))
        assert await answer(bench.lane.destroy_resident("twin", b"other id"))


async def test_a_resident_key_of_another_spec_is_not_trusted(bench: Bench) -> None:
    assert isinstance(ROOT_KW.source, Resident)
    wrong = KeyHandle(next(SLOTS), MAC, ROOT_KW.source)
    with pytest.raises(Untrusted):
        await answer(bench.lane.submit(Operation(OpCode.MAC, 32, wrong, Mechanism.HMAC_SHA_256, b"q")))


async def test_resident_pairs_come_with_their_public_key(bench: Bench) -> None:
    spec = KeySpec(Algorithm.P256, Purpose.SIGN)
    if not await bench.has(spec):
        return
    made = await answer(bench.lane.generate_resident(spec, "pair", b"pair"))
    try:
        assert made.public is not None
        assert len(made.public) == 91
    finally:
        assert await answer(bench.lane.destroy_resident("pair", b"pair"))
    assert "pair" not in {found.label for found in await answer(bench.lane.objects())}


async def test_the_token_is_described(bench: Bench) -> None:
    info = await answer(bench.lane.info())
    assert len(info.identity) == 32
    assert info.serial
    assert ROOT_KW.spec in info.wrapped | info.resident
    assert bool(info.wrapped) is not info.resident_vaults
    assert bench.lane.health().state is LaneState.UP
