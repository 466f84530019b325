"""Turns at a SoftHSM2 token, and when a token's copy is put back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openk_hsm.errors import HsmError
from openk_hsm.pkcs11.care import Care
from openk_hsm.pkcs11.softhsm import SoftHsmCare, care_for

UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
SERIAL = "8293a4b5c6d7e8f9"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    folder = tmp_path / "tokens" / UUID
    folder.mkdir(parents=True)
    (folder / "token.object").write_bytes(b"the token")
    return folder.parent


@pytest.fixture
def begin(tmp_path: Path, tokens: Path) -> Callable[[], SoftHsmCare]:
    """A process that starts."""

    def begun() -> SoftHsmCare:
        care = SoftHsmCare(tokens)
        with care.load():
            pass
        with care.log_in(SERIAL):
            pass
        return care

    return begun


def test_who_changes_has_the_turn_alone(begin: Callable[[], SoftHsmCare], tokens: Path) -> None:
    care = begin()
    descriptor = os.open(tokens / "openk.turn", os.O_RDWR)
    with care.change(), pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(HsmError, match="refused"), care.change():
        raise HsmError("refused")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_an_emptied_token_comes_back_and_a_whole_one_is_left_alone(
    begin: Callable[[], SoftHsmCare], tokens: Path
) -> None:
    begin()
    file = tokens / UUID / "token.object"
    file.write_bytes(b"a new PIN")
    begin()
    assert file.read_bytes() == b"a new PIN"
    file.write_bytes(b"")
    begin()
    assert file.read_bytes() == b"a new PIN"


def test_its_files_are_for_the_owner_only(begin: Callable[[], SoftHsmCare], tokens: Path) -> None:
    begin()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tokens.rglob("openk.*")}
    assert modes == {"openk.token": 0o600, "openk.turn": 0o600}


def test_without_the_folder_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HsmError, match=r"directories\.tokendir"), SoftHsmCare(tmp_path / "absent").load():
        pass


def test_other_modules_need_no_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    (tmp_path / "softhsm2.conf").write_text("directories.tokendir = /tokens\n")
    assert type(care_for("/usr/lib/other.so")) is Care
    assert type(care_for("/usr/lib/libsofthsm2.so")) is SoftHsmCare
    (tmp_path / "softhsm2.conf").unlink()
    assert type(care_for("/usr/lib/libsofthsm2.so")) is Care  # the module itself says what is wrong then
