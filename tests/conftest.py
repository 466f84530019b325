"""For all groups."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.clock import Clock
from tests.support.logs import Captured, captured

# Whoever starts tests in the background of a shell has them ignore SIGINT, and their children with them: then those
# tests which interrupt a child would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline for single examples: the machine may be busy with something else just then.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Measuring makes an example two to three times as slow, and CI has 20 minutes: a third of the usual 100 then. A test that
# names its own number keeps it, each run draws others, and the fuzzers go on where examples end.
settings.register_profile("measured", settings.get_profile("unhurried"), max_examples=33)
settings.load_profile("measured" if "OPENK_CODES" in os.environ else "unhurried")


@pytest.fixture
def clock() -> Clock:
    """It moves when the test moves it."""
    return Clock()


@pytest.fixture
def logged() -> Iterator[Captured]:
    """A real log, whose lines the test reads: `logged.log` for what is tested, `logged.one("event", field=...)`."""
    with captured() as made:
        yield made


def pytest_configure(config: pytest.Config) -> None:
    if folder := os.environ.get("OPENK_CODES"):
        from tests.support.codes import Recorder  # noqa: PLC0415 - it imports all that has error codes

        config.pluginmanager.register(Recorder(Path(folder)))
