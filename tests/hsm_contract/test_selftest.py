"""The self-test passes on every back end, measurements run on each, and both leave the token as it was."""

from __future__ import annotations

import pytest

from openk_hsm.errors import Unsupported
from openk_hsm.pending import settle
from openk_hsm.roots import ROOT
from openk_hsm.seam import Algorithm, KeyHandle, KeySpec, ObjectInfo, Purpose, Wrapped
from openk_hsm.selftest import SHARED, Selftest, Verdict
from openk_hsm.stopwatch import OPERATIONS, ROOM, Stopwatch
from tests.hsm_contract.conftest import SLOTS, Bench
from tests.support.tokens import answer

WRAPPED = {
    "signature": KeySpec(Algorithm.P256, Purpose.SIGN),
    "agreement": KeySpec(Algorithm.P256, Purpose.AGREE),
    "wrapping": KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC),
    "context": KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC),
    "blob": KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC),
    "aes-256-gcm": KeySpec(Algorithm.AES_256_GCM, Purpose.ENCRYPT),
    "p-256": KeySpec(Algorithm.P256, Purpose.SIGN),
    "generate-p-256": KeySpec(Algorithm.P256, Purpose.SIGN),
}


def handle(spec: KeySpec, source: Wrapped) -> KeyHandle:
    return KeyHandle(next(SLOTS), spec, source)


def possible(bench: Bench, name: str) -> bool:
    """What the token says of itself decides; nothing else may be unsupported."""
    if name == "ed25519":
        return bench.info.audit is Algorithm.ED25519
    return name not in WRAPPED or WRAPPED[name] in bench.info.wrapped


async def objects(bench: Bench) -> list[ObjectInfo]:
    return sorted(await answer(bench.lane.objects()), key=lambda one: (one.label, one.id, one.kind))


async def test_every_check_passes_or_is_not_possible(bench: Bench) -> None:
    before = await objects(bench)
    test = Selftest(bench.lane, bench.info, ROOT, handle, memoryview(bytearray(SHARED)), client=3)
    for name in test.names:
        found = await settle(test.run(name))
        expected = Verdict.OK if possible(bench, name) else Verdict.UNSUPPORTED
        assert (found.check, found.verdict) == (name, expected), (found.text, found.error)
    assert await objects(bench) == before


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_is_measured_or_is_not_possible(bench: Bench, operation: str) -> None:
    before = await objects(bench)
    watch = Stopwatch(bench.lane, bench.info, ROOT, handle, memoryview(bytearray(ROOM)), client=3)
    if possible(bench, operation):
        measured = await settle(watch.measure(operation, 5, 10.0))
        assert len(measured.times) == 5
        assert 0 < measured.percentile(0.5) <= measured.percentile(0.99) <= max(measured.times)
    else:
        with pytest.raises(Unsupported):
            await settle(watch.measure(operation, 5, 10.0))
    assert await objects(bench) == before
