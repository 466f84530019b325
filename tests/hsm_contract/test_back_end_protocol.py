"""The type checkers hold each class to the seam here."""

from __future__ import annotations

from openk_hsm.inline import InlineLane
from openk_hsm.lane import WorkerLane
from openk_hsm.pkcs11.backend import Pkcs11Backend
from openk_hsm.seam import Backend, EarlyLogin, Lane
from openk_hsm.software import SoftwareBackend
from openk_hsm.uri import parse_uri


def test_the_classes_keep_the_seam() -> None:
    software = SoftwareBackend(allow=True)
    pkcs11 = Pkcs11Backend(parse_uri("pkcs11:token=x?module-path=/none.so"))
    back_ends: list[Backend] = [software, pkcs11]
    lanes: list[Lane] = [InlineLane(software), WorkerLane("x", [])]
    assert [isinstance(back_end, EarlyLogin) for back_end in back_ends] == [False, True]
    assert [lane.name for lane in lanes] == ["test", "x"]
