from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from openk_hsm.errors import HsmError, Unavailable, WrongPin
from openk_hsm.latch import Latch
from openk_hsm.pin import PinMissing, PinSource


def test_only_a_pin_that_was_tried_latches(tmp_path: Path) -> None:
    latch = Latch(tmp_path, "pkcs11:token=x")
    for harmless in (PinMissing("empty"), Unavailable("gone", device="CKR_DEVICE_ERROR")):
        with pytest.raises(HsmError), latch.guarded():
            raise harmless
        assert not latch.is_set
    with pytest.raises(WrongPin), latch.guarded():
        raise WrongPin("wrong", device="CKR_PIN_INCORRECT")
    assert latch.is_set
    assert json.loads(latch.path.read_bytes())["device"] == "CKR_PIN_INCORRECT"


def test_a_set_latch_lets_nobody_try(tmp_path: Path) -> None:
    latch = Latch(tmp_path, "u")
    latch.path.write_text("{}")
    with pytest.raises(WrongPin, match="unlatch"), latch.guarded():
        pytest.fail("the body ran")
    assert latch.clear()
    assert not latch.clear()
    with latch.guarded():
        pass


def test_tokens_have_their_own_latches(tmp_path: Path) -> None:
    assert Latch(tmp_path, "a").path != Latch(tmp_path, "b").path


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HsmError, match="cannot be written"), Latch(tmp_path / "none", "u").guarded():
        pytest.fail("the body ran")


def _try(folder: Path, tried: Path) -> None:
    try:
        with Latch(folder, "u").guarded():
            with tried.open("a") as file:
                file.write("x")
            time.sleep(0.5)  # the device thinks: the others arrive meanwhile
            raise WrongPin("wrong", device="CKR_PIN_INCORRECT")
    except WrongPin:
        pass


def test_of_many_processes_at_once_only_one_tries(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_try, args=(tmp_path, tmp_path / "tried")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "tried").read_text() == "x"


@pytest.mark.parametrize(
    ("content", "pin"), [(b"1234", b"1234"), (b"12 34\n", b"12 34"), (b"x\r\n", b"x"), (b"\nx", b"\nx")]
)
def test_a_pin_is_read_without_its_final_newline_and_wiped(tmp_path: Path, content: bytes, pin: bytes) -> None:
    (tmp_path / "pin").write_bytes(content)
    with PinSource(file=tmp_path / "pin").read() as view:
        assert bytes(view) == pin
    assert bytes(view) == bytes(len(pin))


def test_a_credential_comes_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pin").write_bytes(b"77")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with PinSource(credential="pin").read() as view:
        assert bytes(view) == b"77"
    for name in ("../pin", ".pin", "none"):
        with pytest.raises(PinMissing), PinSource(credential=name).read():
            pass
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(PinMissing, match="LoadCredential"), PinSource(credential="pin").read():
        pass


def test_a_descriptor_is_read_once_and_closed() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"55\n")
    os.close(writing)
    with PinSource(fd=reading).read() as view:
        assert bytes(view) == b"55"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1024])
def test_an_empty_or_endless_pin_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pin").write_bytes(content)
    with pytest.raises(PinMissing), PinSource(file=tmp_path / "pin").read():
        pass


def test_no_source_is_no_pin() -> None:
    with pytest.raises(PinMissing, match="--pin-file"), PinSource().read():
        pass
