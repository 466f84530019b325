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
    """A resident key whose making is interrupted while the HSM goes away: its intent stays."""
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
    assert len(intents(custody)) == 1
    assert run(Intents(custody.hierarchy).recover()) == 0
    assert len(intents(custody)) == 1
    vendor.away = False
    assert run(Intents(custody.hierarchy).recover()) == 1
    assert intents(custody) == []


def test_the_first_hsm_must_be_there() -> None:
    home, vendor = lanes()
    custody = Custody(hsms=Hsms({"main": home, "vendor": vendor}))
    custody.call("vault.create", vault="here")
    interrupted_key(custody, home, "here")
    with pytest.raises(Unavailable):
        run(Intents(custody.hierarchy).recover())
