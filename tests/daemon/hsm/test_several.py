"""Several HSMs, and groups of them: each is asked by its name, under its own root keys."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from openk_daemon.hsms import Device, Hsms
from openk_hsm.inline import InlineLane
from openk_hsm.lane_health import LaneHealth, LaneState
from openk_hsm.software import SoftwareBackend
from tests.daemon.hsm.kit import Troubled
from tests.support.custody import Custody
from tests.support.lanes import SteeredLane


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
