import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from yubihsm.core import AuthSession, YubiHsm
from yubihsm.defs import ALGORITHM, AUDIT, CAPABILITY, COMMAND
from yubihsm.objects import AsymmetricKey, HmacKey, Opaque, WrapKey

from tests.support.emulator import PASSWORD, Emulator, refusal, write

MOST = 0.003
"""Seconds of processor the emulator may take for an operation over HTTP."""

WAITING = 0.02
"""Seconds even the fastest operation would take if one side waited for the other's delayed acknowledgement (40 ms)."""

TIMES = 200


def connect(emulator: Emulator) -> AuthSession:
    return YubiHsm.connect(emulator.url).create_session_derived(1, PASSWORD)


def used(emulator: Emulator) -> float:
    """Seconds of processor so far. Unlike the time that passes, hardly more on a machine that has other work."""
    times = psutil.Process(emulator.process.pid).cpu_times()
    return times.user + times.system


def test_an_operation_costs_at_most_three_milliseconds() -> None:
    rights = CAPABILITY(0xFFFF_FFFF_FFFF_FFFF)
    with Emulator() as emulator:
        session = connect(emulator)
        mac = HmacKey.generate(session, 0, "k", 1, rights, ALGORITHM.HMAC_SHA256)
        wrap = WrapKey.generate(session, 0, "k", 1, rights, ALGORITHM.AES256_CCM_WRAP, CAPABILITY.NONE)
        sign = AsymmetricKey.generate(session, 0, "k", 1, rights, ALGORITHM.EC_P256)
        wrapped = wrap.wrap_data(bytes(32))
        operations: dict[str, Callable[[], object]] = {
            "echo": lambda: session.send_secure_cmd(COMMAND.ECHO, bytes(100)),
            "hmac": lambda: mac.sign_hmac(bytes(100)),
            "wrap": lambda: wrap.wrap_data(bytes(32)),
            "unwrap": lambda: wrap.unwrap_data(wrapped),
            "ecdsa": lambda: sign.sign_ecdsa(bytes(100)),
            "list": session.list_objects,
        }
        costs: dict[str, float] = {}
        fastest: dict[str, float] = {}
        for name, act in operations.items():
            before, fastest[name] = used(emulator), 60.0
            for _ in range(TIMES):
                begun = time.perf_counter()
                act()
                fastest[name] = min(fastest[name], time.perf_counter() - begun)
            costs[name] = (used(emulator) - before) / TIMES
    print({name: f"{costs[name] * 1e3:.2f} ms, fastest {fastest[name] * 1e3:.2f} ms" for name in operations})
    assert {name: seconds for name, seconds in costs.items() if seconds > MOST} == {}
    assert {name: seconds for name, seconds in fastest.items() if seconds > WAITING} == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_that_it_protects_nothing_and_ends_when_told(number: signal.Signals) -> None:
    emulator = Emulator("--serial", "77")
    assert emulator.greeting == f"listening on {emulator.url} (serial 77; this emulator protects nothing)\n"
    assert YubiHsm.connect(emulator.url).get_device_info().serial == 77
    assert emulator.kill(number) == (0, "")


def test_readiness_is_told_to_a_descriptor() -> None:
    reading, writing = os.pipe()
    emulator = subprocess.Popen(
        [sys.executable, "-m", "yubihsm_emulator", "--listen", "[::1]:0", "--ready-fd", str(writing)],
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
    )
    os.close(writing)
    with open(reading, encoding="ascii") as told:
        url = told.read().strip()
    assert url.startswith("http://[::1]:")
    assert YubiHsm.connect(url).get_device_info().version == (2, 4, 1)
    emulator.terminate()
    assert emulator.wait(timeout=10) == 0


def test_what_was_answered_survives_sigkill(tmp_path: Path) -> None:
    path = str(tmp_path / "device")
    kept: dict[int, bytes] = {}
    for _ in range(3):
        emulator = Emulator("--state", path)
        session = connect(emulator)
        for _ in range(5):
            data = os.urandom(100)
            thing = Opaque.put(session, 0, "k", 1, CAPABILITY.NONE, ALGORITHM.OPAQUE_DATA, data)
            kept[thing.id] = data
        assert emulator.kill(signal.SIGKILL)[0] == -signal.SIGKILL
    with Emulator("--state", path) as emulator:
        session = connect(emulator)
        found = {one.id: one.get() for one in session.list_objects() if isinstance(one, Opaque)}
        boots = [one.number for one in session.get_log_entries().entries if one.command == 0]
    assert found == kept
    assert boots == [2, 3, 4, 5]


def test_options_log_and_serial_last_sessions_do_not(tmp_path: Path) -> None:
    path = str(tmp_path / "device")
    with Emulator("--state", path, "--serial", "5") as emulator:
        session = connect(emulator)
        session.set_command_audit({COMMAND.GET_PSEUDO_RANDOM: AUDIT.ON})
        session.get_pseudo_random(1)
        before = session.get_log_entries().entries
    with Emulator("--state", path) as emulator:
        hsm = YubiHsm.connect(emulator.url)
        assert hsm.get_device_info().serial == 5
        session = hsm.create_session_derived(1, PASSWORD)
        assert session.sid == 0
        assert session.get_command_audit()[COMMAND.GET_PSEUDO_RANDOM] == AUDIT.ON
        after = session.get_log_entries().entries
    assert after[: len(before)] == before
    assert [one.command for one in after[len(before) :]] == [0]
    assert all(following.validate(one) for one, following in pairwise(after))


def test_a_plan_of_faults_from_a_file(tmp_path: Path) -> None:
    plan = write(tmp_path / "plan.toml", '[[faults]]\ndo = "error"\ncode = "INVALID_ID"\ncommands = ["LIST_OBJECTS"]\n')
    with Emulator("--faults", plan) as emulator:
        session = connect(emulator)
        with pytest.raises(Exception, match="INVALID_ID"):
            session.list_objects()
        assert len(session.list_objects()) == 1


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    state, junk = str(tmp_path / "device"), write(tmp_path / "junk", "junk")
    plan = write(tmp_path / "plan.json", '{"faults": [{"do": "explode"}]}')
    with Emulator("--state", state, "--serial", "5") as emulator:
        assert "belongs to another emulator that is running" in refusal("--listen", "127.0.0.1:0", "--state", state)
        taken = emulator.url.removeprefix("http://")
        assert "Address already in use" in refusal("--listen", taken)
    assert f"{state} is device 5, not 6" in refusal("--listen", "127.0.0.1:0", "--state", state, "--serial", "6")
    assert f"{junk}: this is no state of a YubiHSM emulator" in refusal("--listen", "127.0.0.1:0", "--state", junk)
    assert f"{plan}: fault 1: `do` must be one of drop-request" in refusal("--faults", plan)
    assert "No such file" in refusal("--faults", str(tmp_path / "none"))
    assert "is not HOST:PORT" in refusal("--listen", "12345")
    assert "is not a serial number" in refusal("--serial", "0")


def test_help_teaches() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "yubihsm_emulator", "--help"], capture_output=True, text=True, timeout=20, check=True
    ).stdout
    for word in (
        "IT PROTECTS NOTHING",
        "--listen",
        "--state",
        "--serial",
        "--faults",
        "drop-reply",
        "/emulator/faults",
    ):
        assert word in shown
    listed = subprocess.run(
        [sys.executable, "-m", "yubihsm_emulator", "--list-commands"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout.split()
    assert "SIGN_HMAC" in listed


def test_idle_connections_hold_nobody_up() -> None:
    with Emulator() as emulator:
        host, port = emulator.url.removeprefix("http://").rsplit(":", 1)
        idle = [socket.create_connection((host, int(port))) for _ in range(100)]
        idle[0].sendall(b"POST /connector/api HTTP/1.1\r\nContent-Len")
        assert len(connect(emulator).get_pseudo_random(5)) == 5
        for one in idle:
            one.close()
