from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.recovery.store.writers import Killer, killer


@pytest.fixture
def killing() -> Generator[Killer]:
    with killer() as started:
        yield started
