"""Fixtures for tests on `Custody`; each test must give back every lease."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.support.custody import POOL, Custody


@pytest.fixture(autouse=True)
def leases() -> Iterator[None]:
    """After each test: whatever a test opened is wiped by the test, or by the custody it asked for."""
    yield
    gc.collect()
    assert POOL.in_use == 0


@pytest.fixture
def custody(leases: None) -> Iterator[Custody]:
    """Two vaults, nothing in them."""
    made = Custody()
    made.call("vault.create", vault="payments")
    made.call("vault.create", vault="mail")
    yield made
    made.keyring.openings.clear()
