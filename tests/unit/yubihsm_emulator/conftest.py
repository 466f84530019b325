import pytest
from yubihsm.core import AuthSession

from tests.support.emulator import Stand


@pytest.fixture
def stand() -> Stand:
    """A device fresh from the factory, without faults."""
    return Stand.new()


@pytest.fixture
def session(stand: Stand) -> AuthSession:
    """A session with the factory's key, which may everything. It ends with the device, when the test does."""
    return stand.session()
