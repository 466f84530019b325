from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from openk_daemon.store.memory import MemoryStore
from openk_daemon.store.seam import LocalStore
from openk_daemon.store.sqlite import open_store


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A state folder: private, and empty."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chmod(tmp_path, 0o700)
    return str(path)


@pytest.fixture(params=["memory", "memory-deferred", "sqlite"])
async def store(request: pytest.FixtureRequest, folder: str) -> AsyncGenerator[LocalStore]:
    """Every store there is: what is asked of one is asked of all."""
    if request.param == "sqlite":
        async with open_store(folder) as opened:
            yield opened
    else:
        yield MemoryStore(deferred=request.param == "memory-deferred")
