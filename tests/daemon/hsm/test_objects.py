"""hsm.objects: whose each object is, what is missing, and what is nobody's mistake."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openk_daemon.hierarchy.records import KEY_USAGE, VaultBody
from openk_daemon.keys.census import Census, Role, State
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Unit, Write
from openk_hsm.pending import Pending
from openk_hsm.seam import Algorithm, KeySpec, ObjectInfo, Purpose, Resident
from tests.daemon.hsm.kit import made, objects
from tests.support.custody import records, run
from tests.support.lanes import SteeredLane


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
