"""The YubiHSM emulator: frames, its state file, fault plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache

from tests.fuzz.target import Target
from tests.support.emulated_device import ANYBODY, Bench, header
from yubihsm_emulator import plan_reader, state
from yubihsm_emulator.codes import ERROR, REPLY, Algorithm, Command, ObjectType
from yubihsm_emulator.commands import TABLE
from yubihsm_emulator.device import Device
from yubihsm_emulator.faults import Plan
from yubihsm_emulator.material import hmac_key
from yubihsm_emulator.plan_reader import PlanError
from yubihsm_emulator.processor import MAX_INNER, Processor
from yubihsm_emulator.processor import frame as pack
from yubihsm_emulator.state import StateError

_SLOW = {Command.GENERATE_ASYMMETRIC_KEY, Command.GENERATE_WRAP_KEY}
"""Making an RSA key takes seconds: such frames are left out."""
_RSA = {Algorithm.RSA_2048, Algorithm.RSA_3072, Algorithm.RSA_4096}


@cache
def _furnished() -> bytes:
    """The state of a device with an object of most types."""
    bench = Bench()
    every = (1 << 64) - 1
    bench.keypair(1, Algorithm.EC_P256)
    bench.keypair(2, Algorithm.EC_ED25519)
    bench.keep(ObjectType.WRAP_KEY, 1, Algorithm.AES128_CCM_WRAP, bytes(16), delegated=every)
    bench.keep(ObjectType.HMAC_KEY, 1, Algorithm.HMAC_SHA256, hmac_key.from_key(Algorithm.HMAC_SHA256, b"key"))
    bench.keep(ObjectType.SYMMETRIC_KEY, 1, Algorithm.AES128, bytes(16))
    bench.keep(ObjectType.OTP_AEAD_KEY, 1, Algorithm.AES128_YUBICO_OTP, bytes(20))
    bench.keep(ObjectType.TEMPLATE, 1, Algorithm.TEMPLATE_SSH, b"\x01\0\x01\x09")
    bench.keep(ObjectType.OPAQUE, 1, Algorithm.OPAQUE_DATA, b"opaque")
    return state.pack(bench.device)


def _device() -> Device:
    return state.unpack(_furnished(), clock=lambda: 0.0, random=bytes)


def run_emulator(data: bytes) -> None:
    """Each command, in clear and as if inside a session, is answered in a frame that says what it is; the device can be
    written down and comes back the same. Input: command u8 | data, as often as lengths (u16) say."""
    device = _device()
    processor = Processor(device)
    while data:
        size = 2 + int.from_bytes(data[:2], "big")
        one, data = data[2:size], data[size:]
        if not one or (one[0] in _SLOW and any(algorithm in one for algorithm in _RSA)):
            continue
        assert _is_reply(one[0], processor.transceive(one))
        assert _is_reply(one[0], processor.transceive(pack(one[0], one[1:])))
        if len(one) <= MAX_INNER:
            reply = processor._execute(one[0], one[1:], ANYBODY, TABLE.get(one[0]))
            assert _is_reply(one[0], reply)
    again = state.unpack(state.pack(device), clock=lambda: 0.0, random=bytes)
    assert state.pack(again) == state.pack(device)


def _is_reply(command: int, reply: bytes) -> bool:
    if int.from_bytes(reply[1:3], "big") != len(reply) - 3:
        return False
    return reply[0] == command | REPLY or (reply[0] == ERROR and len(reply) == 4)


def _commands() -> Iterator[bytes]:
    one, wrapped = b"\0\1", bytes(13 + 80)
    datas = (b"", one, one + b"data", one + bytes(32), one + wrapped, header(9, Algorithm.EC_P256))
    for command in sorted({*TABLE, Command.CREATE_SESSION, Command.AUTHENTICATE_SESSION, Command.SESSION_MESSAGE}):
        for data in datas[command % 2 :: 2]:
            yield (len(data) + 1).to_bytes(2, "big") + bytes((command,)) + data
    for algorithm in (Algorithm.EC_P256, Algorithm.HMAC_SHA256, Algorithm.AES128, Algorithm.OPAQUE_DATA):
        data = header(9, algorithm) + bytes(32)
        yield (len(data) + 1).to_bytes(2, "big") + bytes((Command.PUT_ASYMMETRIC_KEY,)) + data


def run_state(data: bytes) -> None:
    """Bytes as a state file, as they are and with the checksum that they lack: a device, or a StateError."""
    for one in (data, data + hashlib.sha256(data).digest()):
        try:
            device = state.unpack(one, clock=lambda: 0.0, random=bytes)
        except StateError:
            continue
        packed = state.pack(device)
        assert state.pack(state.unpack(packed, clock=lambda: 0.0, random=bytes)) == packed


def _states() -> Iterator[bytes]:
    yield _furnished()[:-32]
    yield state.pack(Bench().device)[:-32]


def run_plan(data: bytes) -> None:
    """A fault plan in JSON and in TOML: a plan, or a PlanError."""
    text = data.decode("utf-8", "replace")
    for read in (lambda: plan_reader.read_json(data), lambda: plan_reader.read_toml(text)):
        try:
            plan = read()
        except PlanError:
            continue
        assert isinstance(plan, Plan)
        json.loads(plan.describe())


def _plans() -> Iterator[bytes]:
    yield b'{"seed": 7, "faults": [{"do": "error", "code": "DEMO_MODE", "commands": ["SIGN_HMAC"], "after": 1}]}'
    yield b'seed = 1\n[[faults]]\ndo = "delay"\nseconds = 0.5\nchance = 0.25\nevery = 2\ntimes = 0\n'


TARGETS = (
    Target("emulator", run_emulator, _commands, tuple(bytes((command,)) for command in TABLE), 400, 600),
    Target("emulator-state", run_state, _states, (state.MAGIC,), 1200, 1200),
    Target("emulator-plan", run_plan, _plans, (b'"do"', b"[[[[", b"1e999", b"NaN", b"seconds", b"9" * 5000), 8000, 2500),
)
