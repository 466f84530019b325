"""docs/hsm.md says of the YubiHSM what the code says."""

from __future__ import annotations

from tests.support import yubihsm_page


def test_the_generated_parts_are_current() -> None:
    assert yubihsm_page.written() == yubihsm_page.parts(), "run python -m tests.support.yubihsm_page"
