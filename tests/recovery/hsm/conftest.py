from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.outage import Device, compile_outage
from tests.support.tokens import Token, make_token


@pytest.fixture(scope="session")
def hsm_token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    return make_token(tmp_path_factory.mktemp("hsm") / "t")


@pytest.fixture(scope="session")
def outage_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_outage(tmp_path_factory.mktemp("outage"))


@pytest.fixture
def token(hsm_token: Token, tmp_path: Path) -> Token:
    return hsm_token.copy(tmp_path / "token")


@pytest.fixture
def device(outage_module: Path, token: Token) -> Device:
    return Device(outage_module, token)
