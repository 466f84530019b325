"""hsm.selftest: a sound HSM passes, and each check fails where it must."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from openk.wire.methods import HSM_CHECKS
from openk_daemon.refusal import Refusal
from openk_hsm.errors import HsmError, Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending
from openk_hsm.seam import Generated, KeySpec, OpCode, Operation, Wrapped, Wrapper
from openk_hsm.software import SoftwareBackend
from tests.daemon.hsm.kit import made
from tests.support.custody import Custody
from tests.support.lanes import SteeredLane


def test_a_sound_hsm_passes_and_keeps_nothing(lane: SteeredLane) -> None:
    custody = made(lane)
    before = lane.objects().result()
    lane.unloaded.clear()
    found = custody.call("hsm.selftest")
    assert [row["check"] for row in found["checks"]] == list(HSM_CHECKS)
    assert {row["outcome"] for row in found["checks"]} == {"ok"}
    assert found["passed"] is True
    assert lane.objects().result() == before
    assert len(lane.unloaded) == 8
    assert custody.failed == []


def test_one_check_alone(lane: SteeredLane) -> None:
    found = made(lane).call("hsm.selftest", check="agreement")
    assert [row["check"] for row in found["checks"]] == ["agreement"]


class Spoiled(SteeredLane):
    """Answers wrongly: `spoil` changes what the device said to operations of `code`."""

    code: OpCode | None = None
    spoil: Callable[[bytes], bytes] = staticmethod(lambda answer: answer)
    lenient = False
    """Opens whatever it is given, as if nothing were bound."""
    blobs: dict[bytes, tuple[bytes, bytes]]

    def submit(self, operation: Operation) -> Pending[bytes | int]:
        key = operation.key
        if self.lenient and key is not None and isinstance(key.source, Wrapped):
            blob, context = next(iter(self.blobs.values()))
            operation.key = replace(key, source=replace(key.source, blob=blob, context=context))
        pending = super().submit(operation)
        if operation.code is not self.code or operation.into is not None:
            return pending
        changed: Pending[bytes | int] = Pending()
        answer = pending.result()
        assert isinstance(answer, bytes)
        changed.resolve(self.spoil(answer))
        return changed

    def generate(self, spec: KeySpec, wrapper: Wrapper, context: bytes) -> Pending[Generated]:
        pending = super().generate(spec, wrapper, context)
        blob = pending.result().blob
        assert blob is not None
        self.blobs = {b"": (blob, context)}
        return pending


def _flip(answer: bytes) -> bytes:
    return bytes([answer[0] ^ 1]) + answer[1:]


_counter = iter(range(1 << 30))

SPOILS: dict[str, tuple[OpCode | None, Callable[[bytes], bytes]]] = {
    "random": (OpCode.RANDOM, lambda answer: b"\x07" * len(answer)),
    "hmac": (OpCode.MAC, lambda answer: hashlib.sha256(answer + str(next(_counter)).encode()).digest()),
    "audit-key": (OpCode.SIGN, _flip),
    "signature": (OpCode.SIGN, _flip),
    "wrapping": (OpCode.MAC, lambda answer: hashlib.sha256(answer + str(next(_counter)).encode()).digest()),
    "context": (None, bytes),
    "blob": (None, bytes),
    "sealing": (OpCode.DECRYPT, _flip),
}


@pytest.mark.parametrize("check", SPOILS)
def test_a_device_that_errs_fails_the_check(check: str) -> None:
    lane = Spoiled(InlineLane(SoftwareBackend(allow=True), "main"))
    custody = made(lane)
    lane.code, lane.spoil = SPOILS[check]  # type: ignore[assignment]
    lane.lenient = check in {"context", "blob"}
    found = custody.call("hsm.selftest", check=check)
    assert found["passed"] is False
    (row,) = found["checks"]
    assert (row["check"], row["outcome"]) == (check, "failed")
    assert [finding.check for finding in custody.failed] == [check]


def test_a_device_that_opens_what_was_changed_fails_the_check() -> None:
    class Gullible(SteeredLane):
        def submit(self, operation: Operation) -> Pending[bytes | int]:
            if operation.code is OpCode.DECRYPT:
                operation.pending.resolve(bytes(operation.room))
                return operation.pending
            return super().submit(operation)

    lane = Gullible(InlineLane(SoftwareBackend(allow=True), "main"))
    custody = Custody(lane=lane)
    (row,) = custody.call("hsm.selftest", check="seal")["checks"]
    assert (row["outcome"], row["text"]) == ("failed", "a ciphertext opens with a changed tag")


def test_a_device_that_agrees_on_something_else_fails_the_check() -> None:
    class Disagreeing(SteeredLane):
        def submit(self, operation: Operation) -> Pending[bytes | int]:
            pending = super().submit(operation)
            if operation.code is OpCode.AGREE:
                assert operation.into is not None
                operation.into[0] ^= 1
            return pending

    custody = Custody(lane=Disagreeing(InlineLane(SoftwareBackend(allow=True), "main")))
    (row,) = custody.call("hsm.selftest", check="agreement")["checks"]
    assert row["outcome"] == "failed"


def test_an_error_of_the_device_is_a_failed_check_without_its_words(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.fail = lambda _: HsmError("CKR_FUNCTION_FAILED at 0xdeadbeef", device="CKR_FUNCTION_FAILED")
    found = custody.call("hsm.selftest")
    assert {row["outcome"] for row in found["checks"]} == {"failed"}
    assert all("hsm.refused" in row["text"] and "deadbeef" not in row["text"] for row in found["checks"])
    assert all("deadbeef" in str(finding.error) for finding in custody.failed)


def test_an_hsm_that_is_not_there_is_an_error_and_no_verdict(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.fail = lambda _: Unavailable("gone", retry_after=1.0)
    with pytest.raises(Refusal) as refused:
        custody.call("hsm.selftest")
    assert (refused.value.code.name, refused.value.retry_after) == ("hsm.unavailable", 1.0)


def test_what_a_token_cannot_is_unsupported_and_no_failure(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.information = replace(lane.info().result(), wrapped=frozenset())
    found = custody.call("hsm.selftest")
    outcomes = {row["check"]: row["outcome"] for row in found["checks"]}
    assert found["passed"] is True
    able = {check for check, outcome in outcomes.items() if outcome == "ok"}
    assert able == {"random", "hmac", "audit-key", "sealing", "seal"}
    assert set(outcomes.values()) == {"ok", "unsupported"}
