"""A copy of the log is one the verifier accepts, at every size; what was changed is told."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from openk_tools.audit_verify import Range, leaf_hash
from tests.support.fake_daemon import Answer, FakeDaemon, Params
from tests.unit.tools.stage import Ran, run

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ORIGIN = "openk.test/audit"


def entries(count: int) -> list[str]:
    return [json.dumps({"time": f"2026-01-02T03:04:05.{index:06}Z", "method": "system.ping"}) for index in range(count)]


def checkpoint(log: list[str]) -> str:
    tree = Range()
    for entry in log:
        tree.append(leaf_hash(entry.encode()))
    body = f"{ORIGIN}\n{len(log)}\n{base64.b64encode(tree.root()).decode()}\n"
    named = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + PUBLIC[12:]).digest()[:4]
    return f"{body}\n\u2014 {ORIGIN} {base64.b64encode(named + KEY.sign(body.encode())).decode()}\n"


def answers(signed: list[str], given: list[str]) -> dict[str, Answer]:
    """A daemon that signed one log and gives another: they should be the same. Pages hold at most 700."""

    def tail(params: Params) -> dict[str, object]:
        first, limit = int(str(params["first"])), min(int(str(params["limit"])), 700)
        rows = enumerate(given[first : first + limit], first)
        return {"entries": [{"index": index, "entry": entry} for index, entry in rows]}

    head = {"checkpoint": checkpoint(signed), "signed_size": len(signed), "size": len(signed), "public": PUBLIC}
    return {"audit.head": head, "audit.tail": tail}


def openk(daemon: FakeDaemon, *words: object) -> Ran:
    return run(["--socket", str(daemon.path), *map(str, words)])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1500])
def test_copy_is_verified(size: int, tmp_path: Path) -> None:
    log = entries(size)
    with FakeDaemon(tmp_path / "s", answers(log, log)) as daemon:
        made = openk(daemon, "audit", "export", tmp_path / "copy", "--key", tmp_path / "key.pem")
        assert made.status == 0, made.err
        asked = openk(daemon, "audit", "verify", tmp_path / "copy")
        assert (asked.status, asked.out.decode()[:9]) == (0, "verified:")
    told = run(["audit", "verify", str(tmp_path / "copy"), "--public-key", str(tmp_path / "key.pem"), "--json"])
    assert told.status == 0
    assert json.loads(told.out)["size"] == size


def test_copy_grows_to_the_second_level_of_tiles(tmp_path: Path) -> None:
    log = entries(65_536 + 300)
    with FakeDaemon(tmp_path / "s", answers(log, log)) as daemon:
        assert openk(daemon, "audit", "export", tmp_path / "copy").status == 0
        assert openk(daemon, "audit", "verify", tmp_path / "copy").status == 0
    assert (tmp_path / "copy/tile/1/000").stat().st_size == 256 * 32
    assert (tmp_path / "copy/tile/2/000.p/1").stat().st_size == 32


def test_a_daemon_that_gives_other_entries_than_it_signed_is_told(tmp_path: Path) -> None:
    log, other = entries(300), entries(300)
    other[17] = other[17].replace("ping", "pong")
    with FakeDaemon(tmp_path / "s", answers(log, other)) as daemon:
        ran = openk(daemon, "audit", "export", tmp_path / "copy")
    assert ran.status == 78
    assert "audit.damaged" in ran.err
    assert not (tmp_path / "copy" / "checkpoint").exists()


def test_a_log_that_is_shorter_than_its_head_is_told(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", answers(entries(300), entries(200))) as daemon:
        ran = openk(daemon, "audit", "export", tmp_path / "copy")
    assert (ran.status, "no entry 200" in ran.err) == (78, True)


def test_a_changed_copy_is_not_verified(tmp_path: Path) -> None:
    log = entries(300)
    with FakeDaemon(tmp_path / "s", answers(log, log)) as daemon:
        openk(daemon, "audit", "export", tmp_path / "copy")
        bundle = tmp_path / "copy/tile/entries/000"
        bundle.write_bytes(bundle.read_bytes().replace(b"05.000017Z", b"05.900017Z"))
        ran = openk(daemon, "audit", "verify", tmp_path / "copy")
        assert ran.status == 1
        assert b"entry 17" in ran.out


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").write_text("kept")
    with FakeDaemon(tmp_path / "s", answers([], [])) as daemon:
        ran = openk(daemon, "audit", "export", tmp_path / "copy")
    assert ran.status == 2
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["mine"]


def test_follow_prints_each_new_entry_once_until_interrupted(tmp_path: Path) -> None:
    log = entries(3)

    def tail(params: Params) -> dict[str, object]:
        first = int(str(params.get("first", 1)))
        return {"entries": [{"index": index, "entry": entry} for index, entry in enumerate(log) if index >= first]}

    with FakeDaemon(tmp_path / "s", {"audit.tail": tail}) as daemon:
        command = [sys.executable, "-m", "openk_tools.cli", "--socket", str(daemon.path), "audit", "tail", "--follow"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as child:
            assert child.stdout is not None
            seen = [child.stdout.readline(), child.stdout.readline()]
            log.append(entries(4)[3])
            seen.append(child.stdout.readline())
            child.send_signal(signal.SIGINT)
            assert child.stdout.read() == b""
            assert child.wait(10) == 130
    assert [line.split()[0] for line in seen] == [b"1", b"2", b"3"]


def test_verify_without_folder_or_receipt_is_a_mistake() -> None:
    assert run(["audit", "verify", "--public-key", "x"]).status == 2
