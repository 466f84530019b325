"""Marks are durable and cautious; the watch tells once and reacts as told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openk_hsm import watch
from openk_hsm.errors import HsmError, Sealed
from openk_hsm.marks import is_marked, mark_path, remove_mark, write_mark
from openk_hsm.pin import PinSource
from openk_hsm.reach import Named, reach_of
from openk_hsm.seal import Seal
from openk_hsm.uri import parse_uri
from openk_hsm.watch import Reaction, Traced, Watch
from openk_memory.tracers import Tracers


def test_a_mark_is_there_until_it_is_taken_away(tmp_path: Path) -> None:
    path = mark_path(tmp_path, "pkcs11:token=a", "seal")
    assert not is_marked(path)
    write_mark(path, reason="why")
    assert is_marked(path)
    assert json.loads(path.read_bytes())["reason"] == "why"
    assert path.stat().st_mode & 0o777 == 0o600
    assert remove_mark(path)
    assert not remove_mark(path)
    assert path != mark_path(tmp_path, "pkcs11:token=b", "seal")


def test_what_cannot_be_looked_at_counts_as_marked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert is_marked(tmp_path / "file" / "mark")  # ENOTDIR


def test_a_mark_is_not_written_through_a_link(tmp_path: Path) -> None:
    path = mark_path(tmp_path, "u", "seal")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HsmError, match="cannot be written"):
        Seal(tmp_path, "u").set("why")
    assert not (tmp_path / "elsewhere").exists()


class Found:
    """Who traces, look by look."""

    def __init__(self, *found: int) -> None:
        self.found = list(found)

    def __call__(self) -> int:
        return self.found.pop(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(watch, "monotonic", lambda: now[0])
    return now


def test_it_looks_once_a_period_and_tells_once(
    tmp_path: Path, clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    found = Found(0, 17, 17, 0)
    watching = Watch(Reaction.LOG, Seal(tmp_path, "u"), Tracers(found))
    for _ in range(4):
        watching.look()
        watching.look()  # too early: nobody is asked
        clock[0] += watch.PERIOD
    assert found.found == []
    told = capfd.readouterr().err
    assert told.count("traces this worker") == 1
    assert told.count("has gone") == 1


@pytest.mark.usefixtures("clock")
def test_before_a_login_it_looks_at_once_and_knows_nobody(tmp_path: Path) -> None:
    """A tracer that stays is no reason to log in before its eyes."""
    seal = Seal(tmp_path, "u")
    watching = Watch(Reaction.SEAL, seal, Tracers(Found(17, 17, 0)))
    for _ in range(2):
        with pytest.raises(Sealed):
            watching.look_before_login()
    watching.look_before_login()


@pytest.mark.usefixtures("clock")
def test_reactions(tmp_path: Path) -> None:
    seal = Seal(tmp_path, "u")
    with pytest.raises(Traced):
        Watch(Reaction.EXIT, seal, Tracers(Found(17))).look()
    assert not seal.is_set
    with pytest.raises(Sealed):
        Watch(Reaction.SEAL, seal, Tracers(Found(17))).look()
    assert seal.is_set


def test_a_token_folder_is_read_from_the_modules_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    configuration = tmp_path / "softhsm2.conf"
    uri = parse_uri("pkcs11:token=t?module-path=/usr/lib/softhsm/libsofthsm2.so")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    pin = PinSource(file=tmp_path / "pin")
    assert reach_of(uri, pin, tmp_path, Named()) is None  # no configuration: nobody knows
    configuration.write_text(f"# where\n directories.tokendir = {tokens} \nlog.level = ERROR\n")
    reach = reach_of(uri, pin, tmp_path / "state", Named())
    assert reach is not None
    assert list(reach.write) == [tokens]  # the state folder is not there
    assert configuration in reach.read
    assert Path("/etc") not in reach.read
    assert Path("/proc") not in reach.read
