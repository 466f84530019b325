"""hsm.* on the software HSM: what is told of tokens, objects and their owners; and every check can fail."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from openk.wire.methods import HSM_CHECKS, HSM_OPERATIONS, METHODS
from openk_daemon.hierarchy.records import KEY_USAGE, VaultBody
from openk_daemon.hsms import Device, Hsms
from openk_daemon.keys.census import Census, Role, State
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Unit, Write
from openk_hsm.errors import HsmError, Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending, failed
from openk_hsm.seam import (
    Algorithm,
    Generated,
    KeySpec,
    LaneHealth,
    LaneState,
    ObjectInfo,
    OpCode,
    Operation,
    Purpose,
    Resident,
    Wrapped,
    Wrapper,
)
from openk_hsm.software import SoftwareBackend
from openk_hsm.stopwatch import OPERATIONS
from tests.support.custody import Custody, Shown, records, run
from tests.support.lanes import SteeredLane

Spoil = Callable[["Spoiled"], None]


@pytest.fixture
def lane() -> SteeredLane:
    return SteeredLane(InlineLane(SoftwareBackend(allow=True), "main"))


def made(lane: SteeredLane) -> Custody:
    custody = Custody(lane=lane)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/signer", algorithm="p-256", protection="resident")
    custody.call("key.create", key="v/file", algorithm="aes-256-gcm")
    return custody


def objects(custody: Custody) -> dict[tuple[str, str], list[Shown]]:
    """Rows by state and role."""
    found: dict[tuple[str, str], list[Shown]] = {}
    for row in custody.call("hsm.objects")["objects"]:
        found.setdefault((row["state"], row["role"]), []).append(row)
    return found


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


class Troubled(SteeredLane):
    """Says of itself what a test wants."""

    told = LaneHealth("main", LaneState.UP, 1, 0, 0, 0, 0)

    def health(self) -> LaneHealth:
        return self.told


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


# --- objects ---


def test_every_object_has_its_owner(lane: SteeredLane) -> None:
    custody = made(lane)
    custody.call("key.rotate", key="v/signer")
    found = objects(custody)
    assert {row["label"] for row in found["ok", "root"]} == {"openk-root-kw", "openk-root-data", "openk-root-mac"}
    assert [row["label"] for row in found["ok", "audit"]] == ["openk-audit"]
    assert [(row["name"], row["version"]) for row in found["ok", "key"]] == [("v/signer", 1), ("v/signer", 2)]
    assert {row["algorithm"] for row in found["ok", "key"]} == {"p-256"}
    whole = custody.call("hsm.objects")
    assert (whole["unknown"], whole["missing"], whole["doubled"]) == (0, 0, 0)
    assert (whole["keys"], whole["complete"]) == (2, True)
    assert set(found) == {("ok", "root"), ("ok", "audit"), ("ok", "key")}


def test_an_object_of_somebody_else_is_unknown(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.generate_resident(KeySpec(Algorithm.P256, Purpose.SIGN), "web server", b"\x01")
    orphan = bytes(20)
    lane.generate_resident(KeySpec(Algorithm.P256, Purpose.SIGN), f"openk-key-{orphan.hex()}", orphan)
    found = objects(custody)
    assert [row["label"] for row in found["unknown", "none"]] == [f"openk-key-{orphan.hex()}", "web server"]
    whole = custody.call("hsm.objects")
    assert whole["unknown"] == 2
    assert [row["state"] for row in whole["objects"]] == ["ok"] * 5 + ["unknown"] * 2  # what is wrong comes last


def test_a_key_whose_object_has_gone_is_missing(lane: SteeredLane) -> None:
    custody = made(lane)
    (row,) = objects(custody)["ok", "key"]
    lane.destroy_resident(row["label"], bytes.fromhex(row["id"]))
    (missing,) = objects(custody)["missing", "key"]
    assert (missing["name"], missing["version"], missing["label"]) == ("v/signer", 1, row["label"])
    assert custody.call("hsm.objects")["missing"] == 1


def test_two_objects_under_one_name_are_doubled(lane: SteeredLane, monkeypatch: pytest.MonkeyPatch) -> None:
    custody = made(lane)
    listed = lane.objects().result()
    twice: Pending[Any] = Pending()
    twice.resolve([*listed, *(one for one in listed if one.label == "openk-root-mac")])
    monkeypatch.setattr(lane, "objects", lambda: twice)
    assert [row["label"] for row in objects(custody)["doubled", "root"]] == ["openk-root-mac"] * 2


def test_a_key_pair_is_not_doubled(lane: SteeredLane, monkeypatch: pytest.MonkeyPatch) -> None:
    custody = made(lane)
    listed = lane.objects().result()
    halves: Pending[Any] = Pending()
    halves.resolve([*listed, *(replace(one, kind="public") for one in listed if one.kind == "private")])
    monkeypatch.setattr(lane, "objects", lambda: halves)
    assert {state for state, _ in objects(custody)} == {"ok"}


def test_logins_are_the_operators(lane: SteeredLane, monkeypatch: pytest.MonkeyPatch) -> None:
    custody = made(lane)
    listed: Pending[Any] = Pending()
    listed.resolve([*lane.objects().result(), ObjectInfo("DEFAULT AUTHKEY", b"\x00\x01", "authentication", "aes128")])
    monkeypatch.setattr(lane, "objects", lambda: listed)
    assert [row["label"] for row in objects(custody)["ok", "login"]] == ["DEFAULT AUTHKEY"]


def test_what_is_being_made_is_nobodys_mistake(lane: SteeredLane) -> None:
    """A key between its intent and its record: the object is there, and the journal knows it."""
    custody = made(lane)
    custody.outcome("key.create", key="v/later", algorithm="p-256", protection="resident")
    assert len(objects(custody)["ok", "unfinished"]) == 1


def test_a_census_that_stops_early_says_so_and_calls_nothing_unknown(lane: SteeredLane) -> None:
    custody = made(lane)
    for number in range(3):
        custody.call("key.create", key=f"v/more-{number}", algorithm="p-256", protection="resident")
    for most, complete in ((4, False), (5, True), (6, True)):
        report = run(Census(custody.hierarchy, most).take("", lane))
        assert (report.keys, report.complete) == (min(most, 5), complete)
        assert {row.state for row in report.rows} == {State.OK}
        assert sum(row.owner.role is Role.KEY for row in report.rows) == 4


def test_a_census_of_many_vaults_gives_their_keys_back(lane: SteeredLane) -> None:
    custody = made(lane)
    for number in range(120):  # more than a page
        custody.call("vault.create", vault=f"vault-{number}")
    lane.unloaded.clear()
    assert custody.call("hsm.objects")["keys"] == 2
    assert len(lane.unloaded) == 3 * 121
    assert custody.call("key.sign", key="v/signer", input=b"x")["version"] == 1


def test_a_damaged_record_is_an_error_and_no_guess(lane: SteeredLane) -> None:
    custody = made(lane)
    kept = records(custody.store, "vault")  # type: ignore[arg-type]
    ((id_, record),) = kept.items()
    kept[id_] = replace(record, body=record.body[:-1] + bytes([record.body[-1] ^ 1]))
    with pytest.raises(Refusal) as refused:
        custody.call("hsm.objects")
    assert refused.value.code.name == "store.damaged"


# --- selftest: each check is shown to fail where it must ---


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
    """Some make no Ed25519 keys: such a token cannot be a daemon's first, but another."""
    custody = made(lane)
    lane.destroy_resident("openk-audit", b"openk-audit")
    able = lane.info().result()
    no_ed25519 = frozenset(spec for spec in able.resident if spec.algorithm is not Algorithm.ED25519)
    lane.information = replace(able, resident=no_ed25519, audit_public=b"")
    (row,) = custody.call("hsm.selftest", check="audit-key")["checks"]
    assert row["outcome"] == "unsupported"
    assert custody.call("hsm.objects")["missing"] == 0
    with pytest.raises(Refusal, match="ed25519 is not measured"):
        custody.call("hsm.bench", operation="ed25519")


# --- several HSMs ---


def test_handles_of_another_hsm_go_there() -> None:
    """Everything a check or a measurement does is done on the HSM that was asked for, under its own root keys."""
    first = SteeredLane(InlineLane(SoftwareBackend(allow=True), "main"))
    second = SteeredLane(InlineLane(SoftwareBackend(allow=True), "vendor"))
    custody = Custody(hsms=Hsms({"main": first, "vendor": second}))
    custody.call("vault.create", vault="there", hsm="vendor")
    custody.call("key.create", key="there/signer", algorithm="p-256", protection="resident")
    first.operations.clear()
    assert custody.call("hsm.selftest", hsm="vendor")["passed"] is True
    custody.call("hsm.bench", hsm="vendor", operation="p-256", count=3)
    assert not first.operations
    names = {
        hsm: [row["name"] for row in custody.call("hsm.objects", hsm=hsm)["objects"]] for hsm in ("main", "vendor")
    }
    assert "there/signer" in names["vendor"]
    assert "there/signer" not in names["main"]
    assert [row["hsm"] for row in custody.call("hsm.list")["hsms"]] == ["main", "vendor"]
    assert [row["hsm"] for row in custody.call("hsm.status", hsm="vendor")["hsms"]] == ["vendor"]


@dataclass
class Group:
    """Two devices with the same root keys."""

    custody: Custody
    first: SteeredLane
    second: Troubled


@pytest.fixture
def group() -> Group:
    north, south = SoftwareBackend(allow=True), SoftwareBackend(allow=True)
    first = SteeredLane(InlineLane(north, "north"))
    south._token = dict(north._token)
    second = Troubled(InlineLane(south, "south"))
    devices = [
        Device("both", first, "", 3),
        Device("north", first, "", 1, "both"),
        Device("south", second, "", 2, "both", residents=False),
    ]
    custody = Custody(hsms=Hsms({"both": first}), devices=devices)
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/signer", algorithm="p-256", protection="resident")
    return Group(custody, first, second)


def test_members_are_told_behind_their_group(group: Group) -> None:
    group.second.told = LaneHealth("south", LaneState.DIVERGED, 0, 0, 0, 0, 0, "hsm.diverged", 1.0)
    for method in ("hsm.list", "hsm.status"):
        rows = group.custody.call(method)["hsms"]
        assert [(row["hsm"], row["group"], row["configured"]) for row in rows] == [
            ("both", None, 3),
            ("north", "both", 1),
            ("south", "both", 2),
        ]
    (south,) = group.custody.call("hsm.status", hsm="south")["hsms"]
    assert (south["state"], south["breaker"]) == ("diverged", True)
    assert "not those of its group" in south["advice"]


def test_a_member_is_tested_by_itself(group: Group) -> None:
    group.first.operations.clear()
    assert group.custody.call("hsm.selftest", hsm="south")["passed"] is True
    assert group.custody.call("hsm.bench", hsm="south", operation="hmac-sha-256", count=2)["hsm"] == "south"
    assert not group.first.operations
    assert group.second.operations


def test_token_objects_of_a_group_are_on_its_first_member(group: Group) -> None:
    for name, labels in (("both", 5), ("north", 5), ("south", 4)):
        told = group.custody.call("hsm.objects", hsm=name)
        assert len(told["objects"]) == labels
        assert (told["unknown"], told["missing"]) == (0, 0)


# --- devices that keep vaults' keys as token objects ---


def test_keys_of_vaults_that_are_token_objects_have_their_owner(lane: SteeredLane) -> None:
    custody = made(lane)
    lane.information = replace(lane.info().result(), resident_vaults=True, data=Algorithm.AES_256_CCM)
    body = VaultBody(1, "device", bytes(range(16)), 0, b"", b"", b"")
    keys = custody.hierarchy.assemble(body)
    for handle in (keys.sealer.key, keys.wrapper.mac):
        assert isinstance(handle.source, Resident)
        lane.generate_resident(KeySpec(Algorithm.HMAC_SHA_256, Purpose.MAC), handle.source.label, handle.source.id)
    usage = Write(KEY_USAGE, keys.sealer.usage, 0, b"sealed")
    assert len(objects(custody)["unknown", "none"]) == 2
    custody.store.commit(Unit((usage,), b"{}")).result()
    assert {row["label"] for row in objects(custody)["ok", "vault"]} == {
        "openk-data-" + keys.sealer.usage.hex(),
        "openk-mac-" + keys.sealer.usage.hex(),
    }
