"""hsm.list, hsm.info, hsm.status, hsm.attest and hsm.bench on the software HSM."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from openk.wire.methods import HSM_OPERATIONS, METHODS
from openk_daemon.refusal import Refusal
from openk_hsm.errors import Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.pending import Pending, failed
from openk_hsm.seam import OpCode
from openk_hsm.software import SoftwareBackend
from openk_hsm.stopwatch import OPERATIONS
from tests.daemon.hsm.kit import Troubled, made, objects
from tests.support.lanes import SteeredLane


def test_every_answer_is_as_the_table_says(lane: SteeredLane) -> None:
    custody = made(lane)
    for name in ("hsm.list", "hsm.info", "hsm.status", "hsm.objects", "hsm.selftest"):
        assert set(custody.call(name)) == {field.name for field in METHODS[name].result}
    measured = custody.call("hsm.bench", operation="random")
    assert set(measured) == {field.name for field in METHODS["hsm.bench"].result}


def test_what_is_told_of_a_token(lane: SteeredLane) -> None:
    custody = made(lane)
    (row,) = custody.call("hsm.list")["hsms"]
    assert (row["hsm"], row["state"], row["backend"], row["label"]) == ("main", "up", "software", "openk-software")
    info = custody.call("hsm.info", hsm="main")
    assert len(bytes.fromhex(info["identity"])) == 32
    able = {(key["algorithm"], key["purpose"]): key for key in info["keys"]}
    assert able["p-256", "sign"] == {
        "algorithm": "p-256", "purpose": "sign", "resident": True, "wrapped": True, "cached": True,
    }  # fmt: skip
    assert not able["rsa-2048", "sign"]["cached"]
    assert "ECDSA" in info["mechanisms"]
    assert not set(info["mechanisms"]) & set(info["missing"])


@pytest.mark.parametrize("method", ["hsm.info", "hsm.status", "hsm.objects", "hsm.selftest"])
def test_an_hsm_that_is_not_configured_is_refused_with_the_nearest_name(lane: SteeredLane, method: str) -> None:
    with pytest.raises(Refusal, match="main") as refused:
        made(lane).call(method, hsm="mian")
    assert refused.value.code.name == "request.invalid"


@pytest.mark.parametrize(
    ("state", "refusal", "advice"),
    [
        (LaneState.STARTING, "", "No worker has connected yet"),
        (LaneState.RESTARTING, "", "requests wait"),
        (LaneState.DOWN, "", "It comes back by itself"),
        (LaneState.DOWN, "hsm.token_missing", "openk-hsm tokens"),
        (LaneState.DOWN, "hsm.token_uninitialised", "openk-hsm init"),
        (LaneState.LATCHED, "hsm.pin", "openk-hsm unlatch"),
    ],
)
def test_each_bad_state_comes_with_what_to_do(state: LaneState, refusal: str, advice: str) -> None:
    lane = Troubled(InlineLane(SoftwareBackend(allow=True), "main"))
    custody = made(lane)
    down = state in {LaneState.DOWN, LaneState.LATCHED}
    lane.told = LaneHealth("main", state, 0, 3, 2, 1, 4, refusal, 1.0 if down else None)
    (row,) = custody.call("hsm.status")["hsms"]
    assert advice in row["advice"]
    assert (row["breaker"], row["latched"]) == (down, state is LaneState.LATCHED)
    assert row["retry_after"] == (1000 if down else None)
    assert (row["queued"], row["in_flight"], row["restarts"], row["replayed"]) == (3, 2, 1, 4)


def test_every_state_of_a_lane_has_advice(lane: SteeredLane) -> None:
    troubled = Troubled(lane)
    custody = made(troubled)
    for state in LaneState:
        troubled.told = LaneHealth("main", state, 0, 0, 0, 0, 0)
        assert custody.call("hsm.status")["hsms"][0]["advice"]
    troubled.told = LaneHealth("main", LaneState.UP, 1, 0, 0, 0, 0)
    assert custody.call("hsm.status")["hsms"][0]["advice"] == ""


def test_list_waits_for_nobody(lane: SteeredLane, monkeypatch: pytest.MonkeyPatch) -> None:
    custody = made(lane)
    never: Pending[Any] = Pending()
    for answer in (never, failed(Unavailable("gone"))):
        monkeypatch.setattr(lane, "info", lambda answer=answer: answer)
        (row,) = custody.call("hsm.list")["hsms"]
        assert (row["hsm"], row["label"], row["firmware"]) == ("main", None, None)


# --- attest ---


def test_only_resident_keys_are_vouched_for(lane: SteeredLane) -> None:
    with pytest.raises(Refusal, match="v/file is wrapped") as refused:
        made(lane).call("hsm.attest", key="v/file")
    assert refused.value.code.name == "key.unsupported"


def test_a_token_that_does_not_vouch_says_so(lane: SteeredLane) -> None:
    with pytest.raises(Refusal, match="the HSM main does not vouch for p-256 keys") as refused:
        made(lane).call("hsm.attest", key="v/signer")
    assert refused.value.code.name == "key.unsupported"


def test_certificates_come_as_pem_in_their_order(lane: SteeredLane, monkeypatch: pytest.MonkeyPatch) -> None:
    custody = made(lane)
    asked: list[tuple[str, bytes]] = []
    chain = [bytes(range(100)), b"\x30\x00"]

    def attest(label: str, id_: bytes) -> Pending[list[bytes]]:
        asked.append((label, id_))
        answer: Pending[list[bytes]] = Pending()
        answer.resolve(chain)
        return answer

    monkeypatch.setattr(lane, "attest", attest)
    answer = custody.call("hsm.attest", key="v/signer", version=1)
    assert (answer["key"], answer["version"], answer["hsm"]) == ("v/signer", 1, "main")
    (row,) = objects(custody)["ok", "key"]
    assert asked == [(row["label"], bytes.fromhex(row["id"]))]
    parts = answer["pem"].split("-----BEGIN CERTIFICATE-----\n")[1:]
    assert len(parts) == 2
    assert all(len(line) <= 64 for line in answer["pem"].splitlines())
    assert [base64.b64decode(part.partition("-----END")[0]) for part in parts] == chain


# --- bench ---


def test_the_table_names_the_operations_there_are() -> None:
    assert HSM_OPERATIONS == OPERATIONS


@pytest.mark.parametrize("operation", HSM_OPERATIONS)
def test_each_operation_is_measured_and_leaves_nothing(lane: SteeredLane, operation: str) -> None:
    custody = made(lane)
    before = lane.objects().result()
    measured = custody.call("hsm.bench", operation=operation, count=20, milliseconds=1000)
    assert (measured["operation"], len(measured["times"])) == (operation, 20)
    ordered = sorted(measured["times"])
    assert measured["p50"] in ordered
    assert ordered[0] <= measured["p50"] <= measured["p99"] <= ordered[-1]
    assert measured["per_second"] > 0
    assert lane.objects().result() == before


def test_a_measurement_ends_when_its_time_is_over(lane: SteeredLane) -> None:
    assert len(made(lane).call("hsm.bench", operation="random", count=1000, milliseconds=0)["times"]) == 1


def test_no_nonce_of_a_measured_key_comes_twice(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.operations.clear()
    custody.call("hsm.bench", operation="aes-256-gcm", count=50)
    nonces = [bytes(one.param) for one in lane.operations if one.code is OpCode.ENCRYPT]
    assert len(nonces) == len(set(nonces)) == 51
    assert all(one.client == 7 for one in lane.operations)  # the caller's connection: a turn of its own in the queue


def test_what_is_not_possible_is_refused(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.information = replace(lane.info().result(), wrapped=frozenset())
    with pytest.raises(Refusal, match="p-256 is not measured on this HSM") as refused:
        custody.call("hsm.bench", operation="p-256")
    assert refused.value.code.name == "key.unsupported"


def test_a_token_without_an_audit_key_is_no_worse_for_it(lane: SteeredLane) -> None:
    """It makes no key that could be one: such a token cannot be a daemon's first, but another."""
    custody = made(lane)
    lane.destroy_resident("openk-audit", b"openk-audit")
    able = lane.info().result()
    lane.information = replace(able, audit=None, audit_public=b"")
    (row,) = custody.call("hsm.selftest", check="audit-key")["checks"]
    assert row["outcome"] == "unsupported"
    assert custody.call("hsm.objects")["missing"] == 0
    with pytest.raises(Refusal, match="ed25519 is not measured"):
        custody.call("hsm.bench", operation="ed25519")
