from __future__ import annotations

import pytest

from openk_hsm.inline import InlineLane
from openk_hsm.software import SoftwareBackend
from tests.support.custody_fixtures import leases
from tests.support.lanes import SteeredLane

__all__ = ["lane", "leases"]


@pytest.fixture
def lane() -> SteeredLane:
    return SteeredLane(InlineLane(SoftwareBackend(allow=True), "main"))
