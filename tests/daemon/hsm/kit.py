"""A custody with a resident and a wrapped key, and what `hsm.objects` says of it."""

from __future__ import annotations

from openk_hsm.lane_health import LaneHealth, LaneState
from tests.support.custody import Custody, Shown
from tests.support.lanes import SteeredLane


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


class Troubled(SteeredLane):
    """Says of itself what a test wants."""

    told = LaneHealth("main", LaneState.UP, 1, 0, 0, 0, 0)

    def health(self) -> LaneHealth:
        return self.told
