"""What waits for an HSM that is not there: unfinished token objects on it stay in the journal, and the daemon starts."""

from __future__ import annotations

import pytest

from openk_daemon.hierarchy.intents import Intents
from openk_daemon.hierarchy.records import INTENT
from openk_daemon.hsms import Hsms
from openk_daemon.refusal import Refusal
from openk_daemon.store.seam import Record
from openk_hsm.errors import Interrupted, Unavailable
from openk_hsm.inline import InlineLane
from openk_hsm.pending import Pending, failed
from openk_hsm.seam import ObjectInfo
from openk_hsm.software import SoftwareBackend
from tests.support.custody import Custody, run
from tests.support.lanes import SteeredLane


class Away(SteeredLane):
    """Does not destroy while it is away."""

    away = False

    def destroy_resident(self, label: str, id_: bytes) -> Pending[bool]:
        return failed(Unavailable("away")) if self.away else super().destroy_resident(label, id_)


def lanes() -> tuple[Away, Away]:
    return (
        Away(InlineLane(SoftwareBackend(allow=True), "main")),
        Away(InlineLane(SoftwareBackend(allow=True), "vendor")),
    )


def interrupted_key(custody: Custody, lane: Away, vault: str) -> None:
    """A resident key whose making is interrupted each time, and the HSM goes away: its intents stay."""
    lane.fail_resident, lane.away = Interrupted("the worker died"), True
    with pytest.raises(Refusal) as refused:
        custody.call("key.create", key=f"{vault}/k", algorithm="p-256", protection="resident")
    assert refused.value.code.name == "hsm.interrupted"
    lane.fail_resident = None


def intents(custody: Custody) -> list[Record]:
    async def all_of_them() -> list[Record]:
        return list(await custody.store.query(INTENT))

    return run(all_of_them())


def test_an_intent_on_an_absent_hsm_waits_for_a_later_start() -> None:
    home, vendor = lanes()
    custody = Custody(hsms=Hsms({"main": home, "vendor": vendor}))
    custody.call("vault.create", vault="there", hsm="vendor")
    interrupted_key(custody, vendor, "there")
    left = len(intents(custody))
    assert left
    assert run(Intents(custody.hierarchy).recover()) == 0
    assert len(intents(custody)) == left
    vendor.away = False
    assert run(Intents(custody.hierarchy).recover()) == left
    assert intents(custody) == []


def test_what_could_not_be_destroyed_is_when_the_hsm_is_back() -> None:
    home, vendor = lanes()
    custody = Custody(hsms=Hsms({"main": home, "vendor": vendor}))
    custody.call("vault.create", vault="there", hsm="vendor")
    interrupted_key(custody, vendor, "there")
    left = len(intents(custody))
    assert run(Intents(custody.hierarchy).clear()) == 0
    assert len(intents(custody)) == left
    vendor.away = False
    assert run(Intents(custody.hierarchy).clear()) == left
    assert intents(custody) == []
    assert run(Intents(custody.hierarchy).clear()) == 0


def test_a_next_version_that_failed_is_no_conflict_for_the_one_asked_for_again() -> None:
    home, _ = lanes()
    custody = Custody(hsms=Hsms({"main": home}))
    custody.call("vault.create", vault="v")
    custody.call("key.create", key="v/k", algorithm="p-256", protection="resident")
    home.fail_resident, home.away = Interrupted("the worker died"), True
    with pytest.raises(Refusal, match="interrupted"):
        custody.call("key.rotate", key="v/k")
    home.fail_resident, home.away = None, False
    assert custody.call("key.rotate", key="v/k")["version"] == 2
    assert intents(custody) == []
    assert [found.label[:10] for found in run(_objects(home))].count("openk-key-") == 2


async def _objects(lane: Away) -> list[ObjectInfo]:
    return list(await lane.objects())


def test_the_first_hsm_must_be_there() -> None:
    home, vendor = lanes()
    custody = Custody(hsms=Hsms({"main": home, "vendor": vendor}))
    custody.call("vault.create", vault="here")
    interrupted_key(custody, home, "here")
    with pytest.raises(Unavailable):
        run(Intents(custody.hierarchy).recover())
