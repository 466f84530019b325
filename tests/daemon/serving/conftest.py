from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon.serving.kit import LogFile


@pytest.fixture
def logged() -> Iterator[LogFile]:
    made = LogFile()
    yield made
    made.close()
